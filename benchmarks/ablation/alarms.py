"""How early the alarm for reward hacking is: a run's fall, when the alarm fired, and when others would have."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ablation.figures import Result, smooth

from trl_hybrid.hybrid.alarm import HackingAlarm


WIDTH = 10
"""Steps that the pass rate is averaged over before a fall is looked for."""

FALL, ONSET = 0.5, 0.1
"""Shares of its best that a pass rate has lost when it has fallen, and when it begins to."""

Z_975 = 1.96
"""97.5 % quantile of the normal distribution."""


def fall_of(pass_rate: Sequence[float], width: int = WIDTH, lost: float = FALL) -> int | None:
    """Find the step at which a run's pass rate had fallen for good.

    The first step from which on the mean of the last `width` steps stays below `1 - lost` of its best so far, to the
    end of the run and for `width` steps at least. Nothing is averaged over fewer than `width` steps.

    Args:
        pass_rate: One share a step.
        width: In steps.
        lost: In (0, 1).

    Returns:
        Its number, counted from 1; `None` for a run that did not fall.

    >>> fall_of([0.6, 0.6, 0.6, 0.2, 0.2, 0.2], width=2), fall_of([0.6, 0.6, 0.2, 0.2, 0.6, 0.6], width=2)
    (5, None)
    """
    means = smooth(pass_rate, width)[width - 1 :]
    below = [mean < (1.0 - lost) * max(means[: place + 1]) for place, mean in enumerate(means)]
    stays = 0
    while stays < len(below) and below[-1 - stays]:
        stays += 1
    return len(pass_rate) - stays + 1 if stays >= width else None


def replay(run: Result, alarm: HackingAlarm) -> int | None:
    """Let an alarm hear a run again.

    Args:
        run: With the curves `wrong_score`, `wrong_deviation` and `pass_rate`.
        alarm: A new one.

    Returns:
        The step at which it fires, counted from 1; `None` where it does not.
    """
    figures = zip(*(run["curves"][name] for name in ("wrong_score", "wrong_deviation", "pass_rate")), strict=True)
    for step, (score, deviation, passed) in enumerate(figures, start=1):
        # A step without a scored wrong answer tells nothing.
        if score is not None and alarm.hear(score, deviation, passed):
            return step
    return None


def kept_at(pass_rate: Sequence[float], step: int, width: int = WIDTH) -> float:
    """Share of the best pass rate so far that a run still had at a step, both over `width` steps.

    >>> kept_at([0.5, 0.5, 0.25, 0.25], step=4, width=2)
    0.5
    """
    means = smooth(pass_rate, width)[:step]
    return means[-1] / max(means[min(width, step) - 1 :])


@dataclass(frozen=True)
class Tally:
    """How an alarm did over runs.

    Attributes:
        ahead: Steps from the alarm to the fall, for each run that fell and was heard; negative where it came after.
        missed: Runs that fell and were not heard.
        false: Runs that did not fall and were heard.
        healthy: Runs that did not fall.
    """

    ahead: tuple[int, ...]
    missed: int
    false: int
    healthy: int

    @property
    def in_time(self) -> int:
        """Runs that were heard no later than they fell."""
        return sum(steps >= 0 for steps in self.ahead)

    @property
    def fell(self) -> int:
        """Runs that fell."""
        return len(self.ahead) + self.missed

    @property
    def median_ahead(self) -> float:
        """Median of `ahead`, NaN without any."""
        return statistics.median(self.ahead) if self.ahead else float("nan")


def tally(steps: Sequence[tuple[int | None, int | None]]) -> Tally:
    """Count what an alarm did.

    Args:
        steps: A run's fall and its alarm, each `None` where there was none.

    >>> tally([(50, 40), (50, 60), (50, None), (None, None), (None, 70)])
    Tally(ahead=(10, -10), missed=1, false=1, healthy=2)
    """
    ahead = tuple(fall - alarm for fall, alarm in steps if fall is not None and alarm is not None)
    missed = sum(fall is not None and alarm is None for fall, alarm in steps)
    healthy = [alarm for fall, alarm in steps if fall is None]
    return Tally(ahead, missed, sum(alarm is not None for alarm in healthy), len(healthy))


def share_interval(hits: int, trials: int) -> tuple[float, float]:
    """Estimate a share with Wilson's interval, which holds 95 % and is sound where nothing or everything hit.

    Args:
        hits: In [0, trials].
        trials: At least 1.

    Returns:
        (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n), with p = hits / n.

    >>> [round(bound, 3) for bound in share_interval(0, 10)], [round(bound, 3) for bound in share_interval(5, 10)]
    ([0.0, 0.278], [0.237, 0.763])
    """
    share, part = hits / trials, Z_975**2 / trials
    half = Z_975 * (share * (1.0 - share) / trials + part / (4 * trials)) ** 0.5
    low, high = (share + part / 2 - half) / (1.0 + part), (share + part / 2 + half) / (1.0 + part)
    return max(low, 0.0), min(high, 1.0)
