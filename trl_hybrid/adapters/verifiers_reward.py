"""verifiers and prime-rl: `rewards.math_verifier.fn=trl_hybrid.adapters.verifiers_reward.math_verifier`.

Looked at with verifiers 0.4.0; the `Rubric`, which 0.4 has no more, with 0.3.1 and 0.1.14.
"""

from typing import Any

from trl_hybrid.adapters import judge_in_thread
from trl_hybrid.errors import InputError


async def math_verifier(task: Any, trace: Any) -> float:
    """Pay a rollout of `verifiers.v1`, by the field `answer` of its task's data.

    Returns:
        1.0 for a right last reply, 0.0 for a wrong one; 0.0 also where the answer cannot be judged, as a reward must
        be a number. All rollouts of that task then get the same, which moves nothing within a group.
    """
    answer = getattr(task, "answer", None)
    if answer is None:
        raise InputError(f"A task's data must have a field `answer`, {type(task).__name__} has none. Add it to it.")
    return (await judge_in_thread(trace.last_reply, answer, task.prompt_text, trace.is_truncated)).reward or 0.0


async def correct_answer(prompt: Any, completion: Any, answer: str, state: Any) -> float:
    """Pay a rollout of verifiers up to 0.3, as `math_verifier` does."""
    if not completion:
        return 0.0
    return (await judge_in_thread(completion, answer, prompt, bool(state.get("is_truncated")))).reward or 0.0


def math_rubric() -> Any:
    """Make a `Rubric` of verifiers up to 0.3, for an environment's `rubric`."""
    from verifiers import Rubric  # pyright: ignore[reportMissingImports] - the package that reads this

    return Rubric(funcs=[correct_answer])
