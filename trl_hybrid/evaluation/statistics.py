"""From judged samples to the figures of an evaluation, with intervals, alone and against another policy. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trl_hybrid.evaluation.metrics import best_of, bootstrap_interval, pass_at_k, steps_of_k, vote
from trl_hybrid.verifier.equivalence import compare_strings, compare_without_algebra
from trl_hybrid.verifier.verdict import is_right


FIELDS = {"lenient": "correct", "strict": "strict"}
"""The two kinds of verdict, and the field of a sample that holds each."""

Figures = dict[str, dict[str, dict[str, float | None]]]


def is_judged(row: dict[str, Any]) -> bool:
    """Say whether the problem's gold could be judged against every answer."""
    return all(sample["correct"] is not None and sample["strict"] is not None for sample in _answers(row))


def problem_values(row: dict[str, Any], verdict: str) -> dict[str, float]:
    """Compute a judged problem's part in each figure; an average over problems is the figure.

    Returns:
        `greedy`, `mean_of_<n>`, `pass@<k>`, `majority_of_<n>` and, with scores, `best_of_<n>`, as far as there are
        answers: shares in [0, 1]; NaN where no score is finite.
    """
    field, samples = FIELDS[verdict], row["samples"]
    right = [bool(sample[field]) for sample in samples]
    values = {"greedy": float(row["greedy"][field])} if "greedy" in row else {}
    count = len(samples)
    if count == 0:
        return values
    values[f"mean_of_{count}"] = sum(right) / count
    values |= {f"pass@{k}": pass_at_k(count, sum(right), k) for k in steps_of_k(count)}
    values[f"majority_of_{count}"] = vote(_ballots(samples, verdict), right, SAME[verdict])[0]
    if "score" in samples[0]:
        best = best_of([sample["score"] for sample in samples], right)
        values[f"best_of_{count}"] = float("nan") if best is None else best
    return values


def same_answer(one: str, other: str) -> bool:
    r"""Say whether two answers are one vote: equal as the verifier compares strings and numbers, without algebra.

    >>> same_answer("1,000", "1000.0"), same_answer(r"\frac12", "0.5"), same_answer("x+1", "1+x")
    (True, True, False)
    """
    reason = compare_without_algebra(one, other)
    return one == other or (reason is not None and bool(is_right(reason)))


def same_text(one: str, other: str) -> bool:
    r"""Say whether two answers are one vote where `0.5` is not `1/2`: equal as the strict verdict compares.

    >>> same_text(r"\dfrac12", r"\frac{1}{2}"), same_text(r"\frac12", "0.5")
    (True, False)
    """
    return one == other or compare_strings(one, other) == "exact"


SAME = {"lenient": same_answer, "strict": same_text}
"""Which answers are one candidate, for each kind of verdict: those that the verdict cannot tell apart."""


def summarize(rows: Sequence[dict[str, Any]], seed: int = 0) -> Figures:
    """Average over the judged problems.

    Returns:
        For each verdict and figure: `value` and the ends `low` and `high` of its 95 % interval; None where unknown.
    """
    judged = [row for row in rows if is_judged(row)]
    return {verdict: _with_intervals([problem_values(row, verdict) for row in judged], seed) for verdict in FIELDS}


def compare_models(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], seed: int = 0) -> Figures:
    """Subtract figures of the same problems, problem by problem: after minus before.

    Args:
        before: The problems with one policy's answers.
        after: The same problems with the other one's.
        seed: Of the bootstrap.

    Returns:
        As [`summarize`]; only figures that both have.
    """
    pairs = [(one, other) for one, other in zip(before, after, strict=True) if is_judged(one) and is_judged(other)]
    differences = {}
    for verdict in FIELDS:
        values = [(problem_values(one, verdict), problem_values(other, verdict)) for one, other in pairs]
        rows = [{name: new[name] - old[name] for name in new if name in old} for old, new in values]
        differences[verdict] = _with_intervals(rows, seed)
    return differences


def counts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Count what an average does not show.

    Returns:
        `problems`; `unjudgeable` ones, which no figure counts; `never_right`: judged problems without a right sample
        (lenient); `tied_votes`: those whose lenient vote is tied; `samples` in all, `truncated` and `unboxed` ones
        among them, and `non_finite_scores`.
    """
    judged = [row for row in rows if is_judged(row)]
    samples = [sample for row in rows for sample in row["samples"]]
    return {
        "problems": len(rows),
        "unjudgeable": len(rows) - len(judged),
        "never_right": sum(not any(sample["correct"] for sample in row["samples"]) for row in judged),
        "tied_votes": sum(_is_tied(row["samples"]) for row in judged),
        "samples": len(samples),
        "truncated": sum(sample["truncated"] for sample in samples),
        "unboxed": sum(not sample["boxed"] for sample in samples),
        "non_finite_scores": sum("nonfinite" in sample for sample in samples),
    }


def _answers(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [*([row["greedy"]] if "greedy" in row else []), *row["samples"]]


def _ballots(samples: Sequence[dict[str, Any]], verdict: str) -> list[str | None]:
    """The answers that vote: with the strict verdict only those in a box."""
    return [sample["answer"] if sample["boxed"] or verdict == "lenient" else None for sample in samples]


def _is_tied(samples: Sequence[dict[str, Any]]) -> bool:
    return vote(_ballots(samples, "lenient"), [bool(sample["correct"]) for sample in samples], same_answer)[1]


def _with_intervals(rows: Sequence[dict[str, float]], seed: int) -> dict[str, dict[str, float | None]]:
    names = list(rows[0]) if rows else []
    values = np.array([[row[name] for name in names] for row in rows], dtype=np.float64)
    if not names:
        return {}
    low, high = bootstrap_interval(values, seed)
    return {
        name: {"value": _mean(values[:, i]), "low": _number(low[i]), "high": _number(high[i])}
        for i, name in enumerate(names)
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _number(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)
