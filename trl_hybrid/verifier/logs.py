"""What a batch of verdicts tells a training run: columns of the completions table, and rates."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

from trl_hybrid.verifier.verdict import AnswerForm, Verdict


logger = logging.getLogger(__name__)

MARKS: dict[str, AnswerForm] = {"boxed": "box", "####": "hash", "<answer>": "tag"}
"""What a prompt says that asks for a form."""

HARDLY_ANY = 0.1
FEWEST_ROWS = 16
RATES = {
    "timeout_rate": "timeout",
    "no_answer_rate": "no_answer",
    "unjudgeable_rate": "unjudgeable",
    "starved_rate": "starved",
    "error_rate": "error",
}


def log_columns(verdicts: Sequence[Verdict], log_extra: Callable[[str, list[Any]], None]) -> None:
    """Log the columns `gold`, `extracted_answer`, `reason` and `answer_form`."""
    log_extra("gold", [verdict.gold for verdict in verdicts])
    log_extra("extracted_answer", [verdict.parsed_answer or "" for verdict in verdicts])
    log_extra("reason", [verdict.reason for verdict in verdicts])
    log_extra("answer_form", [verdict.form or "" for verdict in verdicts])


def log_rates(verdicts: Sequence[Verdict], log_metric: Callable[[str, float], None]) -> None:
    """Log the share of rows by reason, that of right answers by form, and how many milliseconds a row took."""
    rows = max(1, len(verdicts))
    for name, reason in RATES.items():
        log_metric(f"verifier/{name}", sum(verdict.reason == reason for verdict in verdicts) / rows)
    right = [verdict.form for verdict in verdicts if verdict.correct]
    for form in get_args(AnswerForm) if right else ():
        log_metric(f"verifier/right_in_{form}", right.count(form) / len(right))
    milliseconds = sorted(verdict.milliseconds for verdict in verdicts)
    for name, share in (("ms_p50", 0.5), ("ms_p95", 0.95), ("ms_max", 1.0)):
        log_metric(f"verifier/{name}", percentile(milliseconds, share))


def warn_of_form(verdicts: Sequence[Verdict], prompts: Any) -> bool:
    """Warn where hardly any answer is in the form that the prompts ask for, and say whether it was warned."""
    if prompts is None or len(verdicts) < FEWEST_ROWS:
        return False
    asked = [_form_asked_for(str(prompt)) for prompt in prompts]
    given = [verdict.form == form for verdict, form in zip(verdicts, asked, strict=True) if form is not None]
    if len(given) < FEWEST_ROWS or sum(given) >= HARDLY_ANY * len(given):
        return False
    logger.warning(
        "Of %d completions %d give their answer in the form that the prompt asks for. Others count too, by a phrase "
        "or their last number, but are judged less surely. An example in the system prompt or a cold start helps.",
        len(given),
        sum(given),
    )
    return True


def _form_asked_for(prompt: str) -> AnswerForm | None:
    return next((form for mark, form in MARKS.items() if mark in prompt), None)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the ordered values do not pass; 0 of none.

    Example:
        >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.95), percentile([], 0.5)
        (2.0, 4.0, 0.0)
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
