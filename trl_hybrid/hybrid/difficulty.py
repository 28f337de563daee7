"""The difficulty weight: prompts whose answers the reward model tells apart push harder.

HERO (arXiv 2510.07242, eq. 4): with `sigma` the deviation of the scores in a prompt's group and `sigma_bar` its
running mean,

    w = w_min + (w_max - w_min) * sigmoid(k * (sigma - sigma_bar))

It multiplies advantages: multiplied into rewards, it would cancel wherever advantages are divided by their group's
deviation.
"""

import math
from typing import Any, Literal

import torch

from trl_hybrid.errors import InputError
from trl_hybrid.hybrid.moments import deviation, mean


Spread = Literal["group", "stratum"]

NEAR = 0.05
"""Share of the way from `w_min` to `w_max` that counts as at an end."""


def check_weight(w_min: float, w_max: float, k: float, prefix: str = "") -> None:
    """Refuse weights that turn advantages round or favour the prompts without spread.

    Raises:
        InputError: `w_min` not a positive finite number, `w_max` not finite or below it, `k` negative or not finite.
    """
    if not 0.0 < w_min < math.inf:
        raise InputError(f"{prefix}w_min must be a positive finite number, got {w_min}. A usual value is 0.4.")
    if not w_min <= w_max < math.inf:
        raise InputError(
            f"{prefix}w_max must be finite and at least {prefix}w_min, got {w_max} with {prefix}w_min = {w_min}. "
            "Usual values are 0.4 and 3.0; equal ones switch the weight off."
        )
    if not 0.0 <= k < math.inf:
        raise InputError(f"{prefix}k must be finite and not negative, got {k}. A usual value is 6.")


def score_deviation(
    verdicts: torch.Tensor, scores: torch.Tensor, group_size: int, spread: Spread = "group"
) -> torch.Tensor:
    """Measure how far the scores of each group lie apart: the `sigma` of HERO's eq. 4.

    Args:
        verdicts: Shape (N,), 1.0 right, 0.0 wrong, NaN unjudgeable. Rows of one prompt are contiguous.
        scores: Shape (N,). Those that are not finite, or of unjudgeable rows, do not count.
        group_size: Completions per prompt; divides N.
        spread: `group`, the population deviation of all the group's scores, which contains the gap between right and
            wrong; or `stratum`, the deviation from the mean of the own verdict, pooled over both verdicts:
            `group` squared is `stratum` squared plus the variance between the two means.

    Returns:
        Shape (N / group_size,), float64; NaN where fewer than two scores count, or with `stratum` no two of the same
        verdict.

    >>> verdicts, scores = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([7.0, 9.0, 1.0, 3.0])
    >>> round(score_deviation(verdicts, scores, group_size=4, spread="stratum").item(), 4)
    1.0
    """
    if spread not in ("group", "stratum"):
        raise ValueError(f"spread must be 'group' or 'stratum', got {spread!r}.")
    verdicts = verdicts.to(torch.float64).reshape(-1, group_size)
    scores = scores.to(torch.float64).reshape(-1, group_size)
    counted = scores.isfinite() & ~verdicts.isnan()
    if spread == "group":
        return deviation(scores, counted).masked_fill(counted.sum(dim=1) < 2, torch.nan)

    right, wrong = counted & (verdicts == 1.0), counted & (verdicts == 0.0)
    centre = torch.where(right, mean(scores, right).unsqueeze(1), mean(scores, wrong).unsqueeze(1))
    pooled = mean((scores - centre).square(), counted).sqrt()
    return pooled.masked_fill((right.sum(dim=1) < 2) & (wrong.sum(dim=1) < 2), torch.nan)


def difficulty_weight(
    sigma: torch.Tensor, sigma_bar: float, w_min: float, w_max: float, k: float, scale_free: bool = False
) -> torch.Tensor:
    """Weigh groups by the spread of their scores (HERO, eq. 4).

    Args:
        sigma: Shape (P,), not negative; NaN where unknown.
        sigma_bar: The running mean of sigma.
        w_min: Weight far below the mean, above 0.
        w_max: Weight far above the mean.
        k: Steepness, per unit of the score; with `scale_free`, per unit of `sigma / sigma_bar`.
        scale_free: Whether to compare `sigma / sigma_bar` with 1, which does not depend on the scores' unit.

    Returns:
        Shape (P,), float64, in [w_min, w_max]. A group of unknown sigma has the weight at the mean,
        `(w_min + w_max) / 2`: nothing says that it is easier or harder than others.

    >>> sigma = torch.tensor([1.0, 0.0, float("nan")])
    >>> [round(w, 4) for w in difficulty_weight(sigma, 1.0, w_min=0.4, w_max=3.0, k=6.0).tolist()]
    [1.7, 0.4064, 1.7]
    """
    gap = sigma.to(torch.float64) - sigma_bar
    if scale_free:
        # A mean of 0 is a mean of zeros: no group differs from it.
        gap = gap / sigma_bar if sigma_bar > 0.0 else torch.zeros_like(gap)
    gap = gap.nan_to_num(nan=0.0)
    return w_min + (w_max - w_min) * torch.sigmoid(k * gap)


def share_at_ends(weights: torch.Tensor, w_min: float, w_max: float) -> float:
    """Say how many weights are at an end, where a little more or less spread makes no difference.

    Returns:
        The share of weights within `NEAR` of the way from either end; NaN without weights or without a way.

    >>> share_at_ends(torch.tensor([1.05, 1.2, 2.0, 3.0]), w_min=1.0, w_max=3.0)
    0.5
    """
    if not w_min < w_max:
        return math.nan
    place = (weights - w_min) / (w_max - w_min)
    return ((place - 0.5).abs() >= 0.5 - NEAR).double().mean().item()


class Saturation:
    """Tells once when the difficulty weight has become a switch: most groups are at one of its ends.

    The weight's steepness is in units of the score. Where a model's scores lie far apart, hardly any group is between
    the ends, and what was meant to shift effort switches groups on and off.

    Args:
        window: Steps looked at.

    Attributes:
        told: Whether it has told.

    >>> saturation = Saturation(window=2)
    >>> [saturation.update(share) for share in (1.0, 0.0, 0.9, 1.0, 1.0)]
    [False, False, False, True, False]
    """

    def __init__(self, window: int = 20) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1 step, got {window}.")
        self.window = window
        self.told = False
        self._shares: list[float] = []

    def update(self, share: float) -> bool:
        """Take the share of a step's groups at an end; NaN tells nothing and is left out.

        Returns:
            Whether the mean share of a full window is above one half for the first time in a run.
        """
        if self.told or share != share:
            return False
        self._shares = [*self._shares, share][-self.window :]
        self.told = len(self._shares) == self.window and sum(self._shares) > self.window / 2
        return self.told

    def state_dict(self) -> dict[str, Any]:
        """The window in JSON types."""
        return {"told": self.told, "shares": list(self._shares)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.told, self._shares = state["told"], list(state["shares"])


class DifficultyWeight:
    """The weight of each group, with the running mean that it is measured against.

    The mean of a step's known sigmas moves `sigma_bar` by `1 / min(steps, horizon)` of the way: the plain mean of the
    first `horizon` steps, from the first on, and an exponential mean afterwards. HERO says "a running mean"; a plain
    one over the whole run would compare late groups with a policy that is long gone, an exponential one from the
    start would hang on the first batch. A step moves the mean before it is weighed, so that the first has one.

    Give it the gathered rows of all processes; then all processes hold the same state.

    Args:
        w_min: Lowest weight, above 0.
        w_max: Highest weight.
        k: Steepness; see [`difficulty_weight`].
        spread: What sigma is; see [`score_deviation`].
        scale_free: Whether `k` is relative to the running mean.
        mean_one: Whether to divide by the mean weight of the step's groups, so that the weight shifts effort between
            groups and does not change the size of the step.
        horizon: Steps that the running mean remembers.

    Raises:
        ValueError: A value out of its range.

    Attributes:
        sigma_bar: The running mean; `None` before the first known sigma.
        steps: Steps that moved it.
        at_ends: [`share_at_ends`] of the groups of known sigma that were weighed last, before `mean_one`.
    """

    def __init__(
        self,
        w_min: float = 0.4,
        w_max: float = 3.0,
        k: float = 6.0,
        spread: Spread = "group",
        scale_free: bool = False,
        mean_one: bool = False,
        horizon: int = 100,
    ) -> None:
        check_weight(w_min, w_max, k)
        if spread not in ("group", "stratum"):
            raise ValueError(f"spread must be 'group' or 'stratum', got {spread!r}.")
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, got {horizon}.")
        self.w_min, self.w_max, self.k = w_min, w_max, k
        self.spread: Spread = spread
        self.scale_free, self.mean_one, self.horizon = scale_free, mean_one, horizon
        self.sigma_bar: float | None = None
        self.steps = 0
        self.at_ends = math.nan

    def weigh(self, verdicts: torch.Tensor, scores: torch.Tensor, group_size: int) -> torch.Tensor:
        """Move the running mean by a step's groups and weigh them. For training steps, with all processes' rows.

        Returns:
            Shape (N,), float64: the weight of each row's group, above 0.
        """
        sigma = score_deviation(verdicts, scores, group_size, self.spread)
        self.update(sigma)
        self.at_ends = share_at_ends(self._plain(sigma[~sigma.isnan()]), self.w_min, self.w_max)
        return self.weights(sigma).repeat_interleave(group_size)

    def update(self, sigma: torch.Tensor) -> None:
        """Move the running mean by the known ones among a step's sigmas, shape (P,)."""
        known = ~sigma.isnan()
        if not known.any():
            return
        self.steps += 1
        current = mean(sigma.to(torch.float64), known).item()
        before = current if self.sigma_bar is None else self.sigma_bar
        self.sigma_bar = before + (current - before) / min(self.steps, self.horizon)

    def weights(self, sigma: torch.Tensor) -> torch.Tensor:
        """Weigh groups by their sigmas, shape (P,), as the running mean is now."""
        weights = self._plain(sigma)
        return weights / weights.mean() if self.mean_one else weights

    def _plain(self, sigma: torch.Tensor) -> torch.Tensor:
        bar = 0.0 if self.sigma_bar is None else self.sigma_bar
        return difficulty_weight(sigma, bar, self.w_min, self.w_max, self.k, self.scale_free)

    def state_dict(self) -> dict[str, Any]:
        """The running mean in JSON types."""
        return {"sigma_bar": self.sigma_bar, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.sigma_bar, self.steps = state["sigma_bar"], state["steps"]
