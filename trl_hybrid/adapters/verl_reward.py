"""verl: `custom_reward_function.path=pkg://trl_hybrid.adapters.verl_reward`. Looked at with verl 0.9.1."""

from typing import Any

from trl_hybrid.adapters import judge


PROMPTS = ("question", "problem", "prompt")


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, float | str]:
    """Pay one response; verl calls it in a thread, so that its event loop goes on.

    Args:
        data_source: Not used.
        solution_str: The response.
        ground_truth: The reference, from the column `reward_model.ground_truth`.
        extra_info: The first of its `PROMPTS` that is text or chat messages is the prompt, whose echo does not count.
            Without one an answer need not be worked out: `48 + 24` passes for 72.
        **kwargs: `custom_reward_function.reward_kwargs` and what else verl passes; not used.

    Returns:
        `score` is what is paid: 0.0 also where the ground truth cannot be judged, as verl has no way to leave a row
        out. All responses to that prompt then get the same, which moves nothing where rewards are compared within a
        group. `acc`, `judged` (whether there was a verdict) and `pred` go to verl's metrics.
    """
    given = [value for name in PROMPTS if (value := (extra_info or {}).get(name)) and isinstance(value, str | list)]
    verdict = judge(solution_str, ground_truth, given[0] if given else None)
    return {
        "score": verdict.reward or 0.0,
        "acc": float(verdict.correct is True),
        "judged": float(verdict.correct is not None),
        "pred": verdict.parsed_answer or "",
    }
