"""How well a reward model's scores order answers to the same problem, and whether they merely follow length. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, nan
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from trl_hybrid.evaluation.metrics import bootstrap_interval


SAME_LENGTH = 0.1
"""Two answers are of the same length where they differ by at most this share of the longer one."""

LENGTHS = ("shorter", "same", "longer")
"""What a right answer can be beside a wrong one."""


@dataclass(frozen=True)
class ScoredGroup:
    """All answers to one problem, in any order.

    Attributes:
        scores: One finite number an answer.
        right: The verifier's verdicts.
        lengths: In tokens.
        votes: How many answers of the group give the same final answer; 0 where there is none.
        whole: Whether the length limit did not cut the answer off.
    """

    scores: Sequence[float]
    right: Sequence[bool]
    lengths: Sequence[int]
    votes: Sequence[int]
    whole: Sequence[bool]

    def of_whole_answers(self) -> "ScoredGroup":
        """Return the group without what was cut off, which is wrong and easily told."""
        kept = [place for place, whole in enumerate(self.whole) if whole]
        return ScoredGroup(
            scores=[self.scores[place] for place in kept],
            right=[self.right[place] for place in kept],
            lengths=[self.lengths[place] for place in kept],
            votes=[self.votes[place] for place in kept],
            whole=[True] * len(kept),
        )


def auc(values: Sequence[float], right: Sequence[bool]) -> float:
    """Return the chance that a right answer has a higher value than a wrong one; a tie is half of it.

    Args:
        values: One an answer.
        right: Whether each is right.

    Returns:
        A share in [0, 1], 0.5 by chance; NaN where there are not both right and wrong answers.

    Example:
        >>> auc([0.9, 0.1, 0.5, 0.5], [True, False, True, False])
        0.875
    """
    high = [value for value, verdict in zip(values, right, strict=True) if verdict]
    low = [value for value, verdict in zip(values, right, strict=True) if not verdict]
    if not high or not low:
        return nan
    return fmean((one > other) + 0.5 * (one == other) for one in high for other in low)


def length_of(right: int, wrong: int) -> str:
    """Say what a right answer's length is beside a wrong one's.

    >>> length_of(100, 120), length_of(95, 100), length_of(12, 10)
    ('shorter', 'same', 'longer')
    """
    if abs(right - wrong) <= SAME_LENGTH * max(right, wrong):
        return "same"
    return "shorter" if right < wrong else "longer"


def accuracy_by_length(group: ScoredGroup) -> dict[str, float]:
    """Return how often a right answer scores above a wrong one, by what its length is beside that one's.

    A reward model that goes by length alone is right in one of `shorter` and `longer` and wrong in the other.

    Returns:
        Shares in [0, 1] by the names of `LENGTHS`, a tie half; NaN where there is no such pair.
    """
    places = range(len(group.right))
    won: dict[str, list[float]] = {name: [] for name in LENGTHS}
    for one in (place for place in places if group.right[place]):
        for other in (place for place in places if not group.right[place]):
            difference = group.scores[one] - group.scores[other]
            won[length_of(group.lengths[one], group.lengths[other])].append((difference > 0) + 0.5 * (difference == 0))
    return {name: fmean(shares) if shares else nan for name, shares in won.items()}


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's correlation, with mean ranks for ties.

    Returns:
        A number in [-1, 1]; NaN with fewer than three values, or where either does not vary.

    Example:
        >>> round(rank_correlation([1, 2, 3, 4], [10, 20, 20, 5]), 3)
        -0.316
    """
    if len(one) < 3 or min(len(set(one)), len(set(other))) < 2:
        return nan
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def length_correlation(group: ScoredGroup) -> float:
    """Correlate score with length among answers with the same verdict, so that being right does not enter.

    Returns:
        The mean of [`rank_correlation`] over the right and the wrong answers; NaN where neither has one.
    """
    found = []
    for verdict in (True, False):
        same = [place for place, right in enumerate(group.right) if right is verdict]
        scores, lengths = ([column[place] for place in same] for column in (group.scores, group.lengths))
        found.append(rank_correlation(scores, lengths))
    known = [value for value in found if isfinite(value)]
    return fmean(known) if known else nan


def calibration_error(differences: Sequence[float], bins: int = 10) -> float:
    """Return how far the reward model's confidence is from its accuracy, on pairs of a right and a wrong answer.

    It was trained as if right - wrong = d meant a chance of sigmoid(d) (Bradley and Terry 1952), so of a pair it calls
    the higher answer better with the confidence sigmoid(|d|). The expected calibration error (Guo et al. 2017,
    arXiv 1706.04599, eq. 3) is the mean of |accuracy - confidence| over bins of equal width, weighted by their pairs.

    Args:
        differences: Score of the right answer minus score of the wrong one.
        bins: Of the confidences, which lie in [0.5, 1].

    Returns:
        A number in [0, 0.5 or more]: 0 is perfect; NaN without pairs.

    Example:
        Four pairs with a confidence of 0.75, three of them in order; and one that is sure and wrong:

        >>> d = 1.0986122886681098
        >>> round(calibration_error([d, d, d, -d]), 6), round(calibration_error([-100.0]), 6)
        (0.0, 1.0)
    """
    binned: dict[int, list[tuple[float, float]]] = {}
    for difference in differences:
        confidence = 1.0 / (1.0 + exp(-abs(difference)))
        place = min(int((confidence - 0.5) * 2 * bins), bins - 1)
        binned.setdefault(place, []).append((confidence, (difference > 0) + 0.5 * (difference == 0)))
    gaps = [
        len(pairs) * abs(fmean(won for _, won in pairs) - fmean(sure for sure, _ in pairs))
        for pairs in binned.values()
    ]
    return sum(gaps) / len(differences) if differences else nan


def group_values(group: ScoredGroup) -> dict[str, float]:
    """Compute a problem's part in each figure; an average over problems is the figure.

    Returns:
        `auc` of the scores; `auc_whole`, among answers that were not cut off; `auc_votes` of the votes for each answer
        and `auc_brevity` of a score that prefers the shorter answer, what can be had without a reward model;
        `right_shorter`, `right_same` and `right_longer` as [`accuracy_by_length`]; `length_correlation`.
    """
    whole = group.of_whole_answers()
    return {
        "auc": auc(group.scores, group.right),
        "auc_whole": auc(whole.scores, whole.right),
        "auc_votes": auc(group.votes, group.right),
        "auc_brevity": auc([-length for length in group.lengths], group.right),
        **{f"right_{name}": share for name, share in accuracy_by_length(group).items()},
        "length_correlation": length_correlation(group),
    }


def ranking_figures(groups: Sequence[ScoredGroup], seed: int = 0) -> dict[str, dict[str, float | int | None]]:
    """Average over problems that have both right and wrong answers, with 95 % bootstrap intervals.

    Args:
        groups: All problems.
        seed: Of the bootstrap.

    Returns:
        By the names of [`group_values`]: `value`, the interval's ends `low` and `high` (`None` where unknown), and
        `problems`, how many have the figure; and `calibration_error` without interval.
    """
    mixed = [group for group in groups if len(set(group.right)) == 2]
    if not mixed:
        return {}
    names = list(group_values(mixed[0]))
    values = np.array([list(group_values(group).values()) for group in mixed])
    low, high = bootstrap_interval(values, seed)
    figures: dict[str, dict[str, float | int | None]] = {
        name: {
            "value": _mean(values[:, place]),
            "low": _number(low[place]),
            "high": _number(high[place]),
            "problems": int((~np.isnan(values[:, place])).sum()),
        }
        for place, name in enumerate(names)
    }
    error = calibration_error([difference for group in mixed for difference in _differences(group)])
    return {**figures, "calibration_error": {"value": error, "low": None, "high": None, "problems": len(mixed)}}


def _differences(group: ScoredGroup) -> list[float]:
    scored = list(zip(group.scores, group.right, strict=True))
    return [one - other for one, right in scored if right for other, verdict in scored if not verdict]


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _number(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)
