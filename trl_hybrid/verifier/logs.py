"""What a batch of verdicts tells a training run: columns of the completions table, and rates."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from trl_hybrid.verifier.verdict import Verdict


RATES = {
    "timeout_rate": "timeout",
    "no_answer_rate": "no_answer",
    "unjudgeable_rate": "unjudgeable",
    "error_rate": "error",
}


def log_columns(verdicts: Sequence[Verdict], log_extra: Callable[[str, list[Any]], None]) -> None:
    """Log the columns `gold`, `extracted_answer` and `reason`."""
    log_extra("gold", [verdict.gold for verdict in verdicts])
    log_extra("extracted_answer", [verdict.parsed_answer or "" for verdict in verdicts])
    log_extra("reason", [verdict.reason for verdict in verdicts])


def log_rates(verdicts: Sequence[Verdict], log_metric: Callable[[str, float], None]) -> None:
    """Log the share of rows by reason, and the median, 95th percentile and maximum of their milliseconds."""
    rows = max(1, len(verdicts))
    for name, reason in RATES.items():
        log_metric(f"verifier/{name}", sum(verdict.reason == reason for verdict in verdicts) / rows)
    milliseconds = sorted(verdict.milliseconds for verdict in verdicts)
    for name, share in (("ms_p50", 0.5), ("ms_p95", 0.95), ("ms_max", 1.0)):
        log_metric(f"verifier/{name}", percentile(milliseconds, share))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the ordered values do not pass; 0 of none.

    Example:
        >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.95), percentile([], 0.5)
        (2.0, 4.0, 0.0)
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
