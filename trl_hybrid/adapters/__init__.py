"""The verifier in other people's trainers and harnesses: one module for each, read by that package itself.

docs/adapters.md has the line that each package takes. A module is never named as the package that reads it: ms-swift
puts this folder in front of Python's path. `python -m trl_hybrid.adapters` prints where the folder is.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from trl_hybrid.rewards import shared_verifier
from trl_hybrid.verifier import Verdict


def judge(completion: Any, solution: Any, prompt: Any = None, truncated: bool = False) -> Verdict:
    """Judge one completion; from any thread.

    Args:
        completion: A string, or chat messages; `None` where there is none.
        solution: The reference. A list is one reference that demands all its values, as in the data of training.
        prompt: Its echo in the completion does not count, and what it asks for must be worked out.
        truncated: Whether a length limit cut the completion off.
    """
    return judge_by_any(completion, [solution], prompt, truncated)


def judge_by_any(completion: Any, solutions: Sequence[Any], prompt: Any = None, truncated: bool = False) -> Verdict:
    """Judge one completion as `judge` does, by references of which any will do.

    Returns:
        The verdict by the reference that the completion does best with: right, else wrong, else unjudgeable, as where
        there is no reference.
    """
    references = list(solutions) or [None]
    rows, given = len(references), "" if completion is None else completion
    verdicts = shared_verifier().verify_batch([given] * rows, references, [prompt] * rows, [truncated] * rows)
    return max(verdicts, key=lambda verdict: (verdict.correct is not None, verdict.correct is True))


async def judge_in_thread(completion: Any, solution: Any, prompt: Any = None, truncated: bool = False) -> Verdict:
    """Judge one completion as `judge` does, while the event loop goes on with its other work."""
    return await asyncio.to_thread(judge, completion, solution, prompt, truncated)
