"""What samples of an answer say about a policy: pass@k, a vote, the best by score, and how sure that is. Pure."""

from collections.abc import Callable, Sequence
from math import comb, isfinite
from statistics import fmean

import numpy as np
from numpy.typing import NDArray


RESAMPLES = 2000


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Estimate, without bias, the chance that at least one of k fresh samples is right.

    1 - C(n - c, k) / C(n, k), n samples of which c are right (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    Args:
        samples: n, at least k.
        right: c, at most n.
        k: At least 1.

    Raises:
        ValueError: `not 0 <= right <= samples`, or `not 1 <= k <= samples`.

    Example:
        >>> pass_at_k(samples=4, right=1, k=1), pass_at_k(samples=4, right=1, k=2), pass_at_k(4, 3, 2)
        (0.25, 0.5, 1.0)
    """
    if not 0 <= right <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@k needs 0 <= right <= samples and 1 <= k <= samples, got {right=}, {samples=}, {k=}.")
    return 1.0 - comb(samples - right, k) / comb(samples, k)


def steps_of_k(samples: int) -> list[int]:
    """List the k of pass@k: 1, 2, 4, ... and the number of samples itself.

    >>> steps_of_k(8), steps_of_k(6), steps_of_k(1)
    ([1, 2, 4, 8], [1, 2, 4, 6], [1])
    """
    return [*(2**power for power in range(samples.bit_length()) if 2**power < samples), samples]


def vote(answers: Sequence[str | None], right: Sequence[bool], same: Callable[[str, str], bool]) -> tuple[float, bool]:
    """Let the samples of a problem vote for an answer.

    Equal answers are one candidate; an answer belongs to the first candidate that it equals. Samples without an answer
    do not vote; without any vote the problem is wrong. Of tied candidates each wins with the same chance, and the
    expected outcome is returned.

    Args:
        answers: One extracted answer a sample, None where there is none.
        right: Whether each is right. A candidate is as right as its first answer.
        same: Whether two answers are equal.

    Returns:
        A share in [0, 1], and whether there was a tie.

    Example:
        >>> vote(["7", "8", "7", None], [True, False, True, False], str.__eq__)
        (1.0, False)
        >>> vote(["7", "8"], [True, False], str.__eq__)
        (0.5, True)
    """
    candidates: list[tuple[str, bool]] = []
    votes: list[int] = []
    for answer, verdict in zip(answers, right, strict=True):
        if answer is None:
            continue
        place = next((i for i, (known, _) in enumerate(candidates) if same(known, answer)), len(candidates))
        if place == len(candidates):
            candidates.append((answer, verdict))
            votes.append(0)
        votes[place] += 1
    winners = [verdict for (_, verdict), count in zip(candidates, votes, strict=True) if count == max(votes)]
    return (fmean(winners) if winners else 0.0), len(winners) > 1


def best_of(scores: Sequence[float | None], right: Sequence[bool]) -> float | None:
    """Take the sample with the highest score; of equal scores each with the same chance.

    Args:
        scores: One a sample; None, NaN and infinities are never taken.
        right: Whether each sample is right.

    Returns:
        A share in [0, 1]; None where no score is finite.

    Example:
        >>> best_of([0.5, 2.0, float("nan")], [True, False, True]), best_of([1.0, 1.0], [True, False])
        (0.0, 0.5)
    """
    known = [(score, verdict) for score, verdict in zip(scores, right, strict=True) if score is not None]
    finite = [(score, verdict) for score, verdict in known if isfinite(score)]
    if not finite:
        return None
    highest = max(score for score, _ in finite)
    return fmean(verdict for score, verdict in finite if score == highest)


def bootstrap_interval(
    values: NDArray[np.float64], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute percentile bootstrap 95 % intervals of means over problems (Efron 1979).

    Problems are drawn with replacement, all figures of a problem together, so that figures of the same problems may be
    subtracted first: the interval is then one of paired differences. NaN, a problem without that figure, does not
    count. Where all values are equal the interval has no width; that is a limit of the method.

    Args:
        values: Shape (problems, figures), at least one problem.
        seed: Of the draws.
        resamples: How many draws.

    Returns:
        Lower and upper ends, shape (figures,) each; NaN where a figure has no values.
    """
    rng = np.random.default_rng(seed)
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    means = np.empty((resamples, values.shape[1]))
    for row in means:
        drawn = rng.integers(len(values), size=len(values))
        count = known[drawn].sum(axis=0)
        row[:] = np.divide(filled[drawn].sum(axis=0), count, out=np.full(len(count), np.nan), where=count > 0)
    ends = np.full((2, values.shape[1]), np.nan)
    measured = known.any(axis=0)
    ends[:, measured] = np.nanpercentile(means[:, measured], [2.5, 97.5], axis=0)
    return ends[0], ends[1]
