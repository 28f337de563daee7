"""lm-evaluation-harness: `process_results: !function trl_hybrid.adapters.lm_eval_metric.process_results`.

Looked at with lm-eval 0.4.13.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from trl_hybrid.adapters import judge
from trl_hybrid.data.columns import column_paths, find_columns, to_task


def process_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Judge what a model answered to one document.

    Args:
        doc: Holds the problem and the reference, in one of the columns that training knows too.
        results: The answer, or the answers where the task repeats and no filter takes one.

    Returns:
        `math_verifier`, the share of right answers, and `judged`, 1.0. Where the reference cannot be judged `judged`
        is 0.0 and `math_verifier` is left out: the harness averages over the documents that have it.
    """
    row = to_task(doc, find_columns(column_paths(doc), doc, "the task"))
    first = results[0] if results else None
    answers = first if isinstance(first, list) else [first]
    verdicts = [judge(answer, row["solution"], row["prompt"]) for answer in answers or [None]]
    right = [float(verdict.correct) for verdict in verdicts if verdict.correct is not None]
    return {"math_verifier": sum(right) / len(right), "judged": 1.0} if right else {"judged": 0.0}
