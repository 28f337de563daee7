"""What a run is measured by, and how two arms are compared."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


Result = dict[str, Any]
ByArm = dict[str, dict[int, Result]]

MEASURES: dict[str, str] = {"greedy": "greedy", "mean_of_8": "mean of 8", "area": "training pass rate"}
"""What arms are compared by, and its heading; `area` is the area under the pass-rate curve divided by the steps."""

T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""97.5 % quantile of Student's t with 1, 2, ... 9 degrees of freedom."""

EDGE = 0.1
"""Share of the steps at either end of a run that are averaged to say where a curve starts and ends."""


@dataclass(frozen=True)
class Interval:
    """A mean difference with its 95 % interval; the bounds are NaN for a single pair."""

    mean: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        if self.pairs == 1:
            return f"{100 * self.mean:+.1f}"
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def measure(result: Result, name: str) -> float:
    """One of `MEASURES` of a run."""
    if name == "area":
        return statistics.fmean(result["curves"]["pass_rate"])
    return result["accuracy"][name]["after"]


def mean_of(results: Iterable[Result], name: str) -> float:
    """Mean over seeds of one of `MEASURES`."""
    return statistics.fmean(measure(result, name) for result in results)


def paired_interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Estimate the mean of `first - second` over pairs, with the t-interval that holds 95 %.

    Args:
        first: One figure a seed.
        second: The other arm's, of the same seeds in the same order.

    Returns:
        mean ± t * s / sqrt(n), s the sample deviation of the n differences.

    Raises:
        ValueError: Different numbers of figures, none, or more than the table of t reaches.

    The differences 1, 2 and 3 have mean 2 and deviation 1; t with 2 degrees of freedom is 4.3027:

    >>> interval = paired_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    >>> round(interval.mean, 3), round(interval.low, 3), round(interval.high, 3), interval.pairs
    (2.0, -0.484, 4.484, 3)
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    pairs = len(differences)
    if not 1 <= pairs <= len(T_975) + 1:
        raise ValueError(f"A paired interval needs 1 to {len(T_975) + 1} pairs, got {pairs}.")
    mean = statistics.fmean(differences)
    if pairs == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    half = T_975[pairs - 2] * statistics.stdev(differences) / pairs**0.5
    return Interval(mean, mean - half, mean + half, pairs)


def compare(results: ByArm, first: str, second: str, name: str) -> Interval:
    """Compare two arms by one of `MEASURES` over the seeds that both have."""
    seeds = [seed for seed in results[first] if seed in results[second]]
    return paired_interval(*([measure(results[arm][seed], name) for seed in seeds] for arm in (first, second)))


def edges(curve: Sequence[float | None]) -> tuple[float, float]:
    """Average a curve over its first and over its last steps; see `EDGE`. Steps without a figure do not count.

    >>> edges([0.0, None, *[0.5] * 16, 0.8, 1.0])
    (0.0, 0.9)
    """
    width = max(1, round(EDGE * len(curve)))
    means = [[value for value in part if value is not None] for part in (curve[:width], curve[-width:])]
    first, last = (statistics.fmean(part) if part else float("nan") for part in means)
    return first, last


def mean_curve(runs: Iterable[Result], name: str) -> list[float | None]:
    """Average a curve over the seeds that have a figure at a step, step by step; None where none has.

    >>> mean_curve([{"curves": {"auc": [0.5, None, None]}}, {"curves": {"auc": [0.7, 0.8, None]}}], "auc")
    [0.6, 0.8, None]
    """
    columns = zip(*(run["curves"][name] for run in runs), strict=True)
    there = [[value for value in column if value is not None] for column in columns]
    return [statistics.fmean(values) if values else None for values in there]


def smooth(curve: Sequence[float | None], width: int = 5) -> list[float]:
    """Average each step with those before it, `width` in all. Steps without a figure do not count.

    >>> smooth([0.0, 1.0, None, 2.0], width=2)
    [0.0, 0.5, 1.0, 2.0]
    """
    ends = range(1, len(curve) + 1)
    windows = [[value for value in curve[max(0, end - width) : end] if value is not None] for end in ends]
    return [statistics.fmean(values) if values else float("nan") for values in windows]
