"""The verifier in other people's trainers and harnesses: one module for each, read by that package itself.

docs/adapters.md has the line that each package takes. A module is never named as the package that reads it: ms-swift
puts this folder in front of Python's path. `python -m trl_hybrid.adapters` prints where the folder is.
"""

import asyncio
from typing import Any

from trl_hybrid.rewards import shared_verifier
from trl_hybrid.verifier import Verdict


def judge(completion: Any, solution: Any, prompt: Any = None, truncated: bool = False) -> Verdict:
    """Judge one completion; from any thread.

    Args:
        completion: A string, or chat messages.
        solution: The reference, or several in a list, of which any will do.
        prompt: Its echo in the completion does not count.
        truncated: Whether a length limit cut the completion off.

    Returns:
        The verdict by the reference that the completion does best with: right, else wrong, else unjudgeable.
    """
    references = list(solution) if isinstance(solution, list | tuple) else [solution]
    rows = len(references)
    verdicts = shared_verifier().verify_batch([completion] * rows, references, [prompt] * rows, [truncated] * rows)
    return max(verdicts, key=lambda verdict: (verdict.correct is not None, verdict.correct is True))


async def judge_in_thread(completion: Any, solution: Any, prompt: Any = None, truncated: bool = False) -> Verdict:
    """Judge one completion as `judge` does, while the event loop goes on with its other work."""
    return await asyncio.to_thread(judge, completion, solution, prompt, truncated)
