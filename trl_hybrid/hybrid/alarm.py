"""What a run tells about its reward model over many steps: ranking, drift, and the alarm for reward hacking.

A step is given with the rows of all processes, as in [`~trl_hybrid.hybrid.diagnostics`].
"""

from collections.abc import Sequence
from typing import Any

import torch

from trl_hybrid.hybrid.diagnostics import group_auc
from trl_hybrid.hybrid.moments import deviation, mean


class RecentAuc:
    """How well the reward model ranks right above wrong, over the mixed groups of the last steps.

    A step has a few mixed groups, and their AUC jumps from step to step: two groups of one right and one wrong answer
    have a mean of 0, 0.5 or 1.

    Args:
        window: Steps looked at.

    Raises:
        ValueError: Fewer than one step.

    >>> recent, verdicts = RecentAuc(window=2), torch.tensor([1.0, 0.0])
    >>> [recent.update(verdicts, torch.tensor(scores), group_size=2) for scores in ([2.0, 1.0], [1.0, 2.0])]
    [(1.0, 1.0), (0.5, 2.0)]
    """

    def __init__(self, window: int = 20) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1 step, got {window}.")
        self.window = window
        self._steps: list[list[float]] = []  # sum of the groups' AUC, and how many these are

    def update(self, verdicts: torch.Tensor, scores: torch.Tensor, group_size: int) -> tuple[float, float]:
        """Take a step's rows of all processes.

        Returns:
            The mean of [`group_auc`] over the window's groups that have one, in [0, 1], NaN without such a group; and
            how many these are.
        """
        auc = group_auc(verdicts, scores, group_size)
        self._steps.append([auc.nansum().item(), float((~auc.isnan()).sum())])
        self._steps = self._steps[-self.window :]
        total, groups = map(sum, zip(*self._steps, strict=True))
        return total / groups if groups else float("nan"), groups

    def state_dict(self) -> dict[str, Any]:
        """The window in JSON types."""
        return {"steps": [list(step) for step in self._steps]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._steps = [list(step) for step in state["steps"]]


class ScoreDrift:
    """How far the mean score has moved from that of the first steps.

    Args:
        steps: Steps whose mean score is the reference.

    Raises:
        ValueError: Fewer than one step.

    >>> drift = ScoreDrift(steps=2)
    >>> [drift.update(torch.tensor([score, score])) for score in (1.0, 3.0, 7.0)]
    [nan, nan, 5.0]
    """

    def __init__(self, steps: int = 10) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        self.steps = steps
        self.seen = 0
        self.reference = 0.0

    def update(self, scores: torch.Tensor) -> float:
        """Take a step's scores, shape (N,), of all processes.

        Returns:
            Their mean less the reference; NaN in the first steps, and for a step without a finite score, which does
            not count as one of them.
        """
        current = mean(scores.to(torch.float64), scores.isfinite()).item()
        if current != current:
            return current
        if self.seen >= self.steps:
            return current - self.reference
        self.seen += 1
        self.reference += (current - self.reference) / self.seen
        return float("nan")

    def state_dict(self) -> dict[str, Any]:
        """The reference in JSON types."""
        return {"seen": self.seen, "reference": self.reference}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.seen, self.reference = state["seen"], state["reference"]


class HackingAlarm:
    """Fires once when the mean score of wrong answers climbs while the pass rate falls.

    It looks at the last steps through several windows, the shorter ones for a run that falls within few steps, and
    fires when one of them shows both a direction that noise does not give and an effect worth a word:

    - Kendall's tau with time, the share of ordered pairs of steps less that of reversed ones, is at least `climb` of
      its deviations under noise for the scores, and at most `-drop` of them for the pass rate. A single odd step
      cannot decide it. Noise alone passes the one in a window of 44 and the other in one of 4,300.
    - Between the first and the second half of the window, the scores climb by at least `rise` of the deviation that
      wrong answers' scores had within a step, and the pass rate loses at least `fall` of what it was.

    Args:
        windows: Steps looked at; each at least 10.
        climb: Deviations of tau, positive.
        drop: Deviations of tau, positive.
        rise: Share of the deviation of the scores.
        fall: Share of the pass rate.

    Raises:
        ValueError: No window, a short one, or a limit that is not positive or that no trend reaches in any window.

    Attributes:
        fired: Whether it has fired.
    """

    def __init__(
        self,
        windows: Sequence[int] = (15, 20, 30, 40),
        climb: float = 2.0,
        drop: float = 3.5,
        rise: float = 0.1,
        fall: float = 0.1,
    ) -> None:
        if not windows or min(windows) < 10:
            raise ValueError(f"windows must be at least 10 steps each, got {windows}: fewer cannot tell a trend.")
        most = 1.0 / trend_deviation(max(windows))
        for name, limit in (("climb", climb), ("drop", drop)):
            if not 0.0 < limit <= most:
                raise ValueError(f"{name} must be above 0 and at most {most:.2f}, what {max(windows)} steps reach.")
        self.windows, self.climb, self.drop, self.rise, self.fall = sorted(windows), climb, drop, rise, fall
        self.fired = False
        self._steps: list[list[float]] = []  # mean and deviation of wrong answers' scores, pass rate

    def update(self, verdicts: torch.Tensor, scores: torch.Tensor) -> bool:
        """Take a step's rows of all processes. A step without a scored wrong answer tells nothing and is left out.

        Returns:
            Whether it fires now; `True` once in a run.
        """
        scores = scores.to(torch.float64)
        wrong = (verdicts == 0.0) & scores.isfinite()
        if not wrong.any():
            return False
        return self.hear(mean(scores, wrong).item(), deviation(scores, wrong).item(), verdicts.nanmean().item())

    def hear(self, wrong_mean: float, wrong_deviation: float, pass_rate: float) -> bool:
        """Take what a step's rows come to, as `update` does: how a run's logged figures are heard again.

        Args:
            wrong_mean: Of wrong answers' scores.
            wrong_deviation: Theirs within the step.
            pass_rate: Share of right answers, in [0, 1].

        Returns:
            Whether it fires now.
        """
        if self.fired:
            return False
        self._steps.append([wrong_mean, wrong_deviation, pass_rate])
        self._steps = self._steps[-self.windows[-1] :]
        steps = torch.tensor(self._steps, dtype=torch.float64)
        self.fired = any(self._sounds(steps[-window:]) for window in self.windows if window <= len(steps))
        return self.fired

    def _sounds(self, steps: torch.Tensor) -> bool:
        noise = trend_deviation(len(steps))
        if trend(steps[:, 0]) / noise < self.climb or trend(steps[:, 2]) / noise > -self.drop:
            return False
        early, late = steps.tensor_split(2)
        (low, typical, before), (high, _, after) = early.mean(dim=0).tolist(), late.mean(dim=0).tolist()
        return high - low >= self.rise * typical and after <= (1.0 - self.fall) * before

    def state_dict(self) -> dict[str, Any]:
        """The window in JSON types."""
        return {"fired": self.fired, "steps": [list(step) for step in self._steps]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.fired, self._steps = state["fired"], [list(step) for step in state["steps"]]


def trend(values: torch.Tensor) -> float:
    """Correlate values with time by Kendall's tau-a.

    Args:
        values: Shape (T,), T at least 2, in the order of time.

    Returns:
        In [-1, 1]: the share of pairs that rise less the share of pairs that fall; equal pairs are neither.

    >>> trend(torch.tensor([1.0, 2.0, 4.0, 3.0]))  # 5 pairs rise, 1 falls
    0.6666666666666666
    """
    later, earlier = torch.tril_indices(len(values), len(values), offset=-1)
    rising = (values[later] > values[earlier]).to(torch.float64)
    falling = (values[later] < values[earlier]).to(torch.float64)
    return (rising - falling).mean().item()


def trend_deviation(steps: int) -> float:
    """Deviation of [`trend`] over values in random order: sqrt(2 (2n + 5) / 9n (n - 1)), n steps (Kendall 1938).

    >>> round(trend_deviation(40), 3)
    0.11
    """
    return (2 * (2 * steps + 5) / (9 * steps * (steps - 1))) ** 0.5
