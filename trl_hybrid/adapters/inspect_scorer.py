"""inspect-ai: `--scorer .../inspect_scorer.py@math_verifier`, or in a task. Looked at with inspect-ai 0.3.285."""

import math

from anyio import to_thread
from inspect_ai.scorer import (  # pyright: ignore[reportMissingImports] - the package that reads this
    CORRECT,
    INCORRECT,
    Score,
    Scorer,
    Target,
    accuracy,
    scorer,
    stderr,
)
from inspect_ai.solver import TaskState  # pyright: ignore[reportMissingImports]

from trl_hybrid.adapters import judge_by_any


@scorer(metrics=[accuracy(), stderr()])
def math_verifier() -> Scorer:
    """Score a sample by the verifier: any of its targets will do.

    A sample whose target cannot be judged is left unscored (NaN), and out of the metrics.
    """

    async def score(state: TaskState, target: Target) -> Score:
        output, cut_off = state.output, state.output.stop_reason in ("max_tokens", "model_length")
        # Inspect may run on trio as well as on asyncio.
        verdict = await to_thread.run_sync(judge_by_any, output.completion, list(target), state.input_text, cut_off)
        value = math.nan if verdict.correct is None else CORRECT if verdict.correct else INCORRECT
        return Score(value=value, answer=verdict.parsed_answer, explanation=verdict.reason)

    return score
