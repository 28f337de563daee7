"""Which lowest and highest score a score is rescaled by, and the rescaling itself.

- `stratum`: those of the same prompt with the same verdict (HERO, arXiv 2510.07242, eq. 3);
- `group`: those of the same prompt, whatever the verdict;
- `calibrated`: two numbers fixed before training, for instance from the answers to a few prompts.
"""

import math
from typing import Any, Literal

import torch

from trl_hybrid.errors import InputError


Bounds = Literal["stratum", "group", "calibrated"]


def check_bounds(low: float, high: float, names: str = "low and high") -> None:
    """Refuse bounds that no score can be rescaled by.

    Raises:
        InputError: A bound is not finite, or `low` is above `high`.
    """
    if not 0.0 <= high - low < math.inf:
        raise InputError(f"{names} must be finite and in this order, got {low} and {high}.")


def extremes(scores: torch.Tensor, member: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the lowest and the highest score of each row's members, those of the scores (P, G) that count.

    Returns:
        Low and high, each of shape (P, 1); inf and -inf where a row has no member.
    """
    low = scores.masked_fill(~member, torch.inf).amin(dim=-1, keepdim=True)
    high = scores.masked_fill(~member, -torch.inf).amax(dim=-1, keepdim=True)
    return low, high


def rescale(scores: torch.Tensor, low: torch.Tensor, high: torch.Tensor, eps: float) -> torch.Tensor:
    """Rescale scores by bounds: (score - low) / (high - low + eps).

    Args:
        scores: Any shape, float64.
        low: Broadcasts with `scores`.
        high: Broadcasts with `scores`.
        eps: Not negative. With 0, bounds must differ.

    Returns:
        The shape of `scores`: in [0, 1] for scores within the bounds, outside for others.
    """
    return (scores - low) / (high - low + eps)


def rescale_among(scores: torch.Tensor, member: torch.Tensor, eps: float, flat: float) -> torch.Tensor:
    """Rescale each row's scores by its members' lowest and highest; members that do not differ become `flat`.

    Returns:
        Shape (P, G), in [0, 1] for the members; other values mean nothing.
    """
    low, high = extremes(scores, member)
    return torch.where(high > low, rescale(scores, low, high, eps), flat)


class CalibratedBounds:
    """The lowest and highest score of a warm-up, kept for the whole run.

    Attributes:
        value: Low and high; `None` before `calibrate` or `load_state_dict`.

    >>> bounds = CalibratedBounds()
    >>> bounds.calibrate(torch.tensor([0.5, -2.0, float("nan"), 3.0]))
    (-2.0, 3.0)
    >>> bounds.state_dict()
    {'low': -2.0, 'high': 3.0}
    """

    def __init__(self) -> None:
        self.value: tuple[float, float] | None = None

    def calibrate(self, scores: torch.Tensor) -> tuple[float, float]:
        """Take the bounds from scores, of any shape; those that are not finite are left out.

        Raises:
            InputError: No two finite scores differ.
        """
        finite = scores[scores.isfinite()].to(torch.float64)
        if len(finite.unique()) < 2:
            raise InputError(
                "Calibration needs at least two finite scores that differ, got "
                f"{len(finite)} finite of {scores.numel()} and {len(finite.unique())} different. Calibrate on more "
                "prompts, or check the reward model."
            )
        self.value = (finite.min().item(), finite.max().item())
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """The bounds in JSON types; both `None` before calibration."""
        low, high = self.value or (None, None)
        return {"low": low, "high": high}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the bounds of `state_dict`.

        Raises:
            ValueError: They are no bounds.
        """
        low, high = state["low"], state["high"]
        if low is None or high is None:
            self.value = None
            return
        check_bounds(low, high, "The saved low and high")
        self.value = (low, high)
