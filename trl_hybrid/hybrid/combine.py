"""The hybrid reward: a verdict chooses the band, the reward model's score the place inside it.

HERO (arXiv 2510.07242, eq. 3): with `z` the score rescaled to [0, 1],

    wrong:  -alpha      + 2 * alpha * z     in [-alpha, alpha]
    right:  (1 - beta)  + 2 * beta  * z     in [1 - beta, 1 + beta]

so `alpha + beta < 1` keeps every right answer above every wrong one.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from trl_hybrid.errors import InputError
from trl_hybrid.hybrid.bounds import Bounds, check_bounds, rescale, rescale_among


Singleton = Literal["middle", "floor"]


def check_bands(alpha: float, beta: float, eps: float, prefix: str = "") -> None:
    """Refuse bands that are empty or overlap.

    Raises:
        InputError: `alpha` or `beta` outside (0, 1], `alpha + beta` above 1, or `eps` not a positive finite number.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0.0 < value <= 1.0:
            raise InputError(f"{prefix}{name} must be above 0 and at most 1, got {value}. A usual value is 0.1.")
    if alpha + beta > 1.0 + 1e-9:  # decimals such as 0.7 + 0.3 may add up to a little more than 1 in binary
        raise InputError(
            f"{prefix}alpha + {prefix}beta must be at most 1, got {alpha} + {beta} = {alpha + beta:g}: above 1 a "
            "wrong answer can get a higher reward than a right one. Lower one of them."
        )
    if not 0.0 < eps < math.inf:
        raise InputError(f"{prefix}eps must be a positive finite number, got {eps}. A usual value is 1e-6.")


@dataclass(frozen=True)
class HybridSettings:
    """How verdict and score are combined: the keyword arguments of [`hybrid_rewards`], checked.

    Attributes:
        eps: Added to the spread of the bounds.
        alpha: Half width of the wrong band, in (0, 1].
        beta: Half width of the right band, in (0, 1]; `alpha + beta` at most 1.
        singleton: Where members of bounds without spread go.
        bounds: What the scores are rescaled by.
        calibrated: The lowest and highest score of `bounds="calibrated"`, and only of that.

    Raises:
        InputError: Bad bands, an unknown `singleton` or `bounds`, or calibrated bounds that are missing, not wanted,
            not finite or in the wrong order.
    """

    eps: float = 1e-6
    alpha: float = 0.1
    beta: float = 0.1
    singleton: Singleton = "middle"
    bounds: Bounds = "stratum"
    calibrated: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_bands(self.alpha, self.beta, self.eps)
        if self.singleton not in ("middle", "floor"):
            raise InputError(f"singleton must be 'middle' or 'floor', got {self.singleton!r}.")
        if self.bounds not in ("stratum", "group", "calibrated"):
            raise InputError(f"bounds must be 'stratum', 'group' or 'calibrated', got {self.bounds!r}.")
        if (self.bounds == "calibrated") != (self.calibrated is not None):
            raise InputError(
                f"bounds='calibrated' and calibrated=(low, high) go together, got bounds={self.bounds!r} and "
                f"calibrated={self.calibrated}."
            )
        if self.calibrated is not None:
            check_bounds(*self.calibrated, "The calibrated low and high")


def combine_hybrid_score(
    verl_score: float,
    rm_score: float,
    min_rm: float,
    max_rm: float,
    eps: float = 1e-6,
    alpha: float = 0.1,
    beta: float = 0.1,
) -> float:
    """Combine one verdict and one reward model score into one reward (HERO, eq. 3).

    Args:
        verl_score: The verifier's verdict: 1.0 right, 0.0 wrong, NaN unjudgeable.
        rm_score: The reward model's score, any real number. A score that is not finite is placed in the middle.
        min_rm: Score that maps to the bottom of the band.
        max_rm: Score that maps to the top of the band.
        eps: Added to `max_rm - min_rm` so that equal bounds divide by something.
        alpha: Half width of the wrong band, in (0, 1].
        beta: Half width of the right band, in (0, 1]; `alpha + beta` at most 1.

    Returns:
        The reward: in [-alpha, alpha] if wrong, in [1 - beta, 1 + beta] if right, NaN if unjudgeable. Scores outside
        the bounds are clamped to the band.

    Raises:
        ValueError: A verdict other than 0, 1 or NaN, bounds that are not finite or in the wrong order, or bands that
            are empty or overlap.

    >>> round(combine_hybrid_score(1.0, rm_score=4.0, min_rm=1.0, max_rm=5.0), 4)  # z = 0.75
    1.05
    >>> combine_hybrid_score(0.0, rm_score=9.0, min_rm=1.0, max_rm=5.0)  # clamped to the top of the wrong band
    0.1
    """
    check_bands(alpha, beta, eps)
    check_bounds(min_rm, max_rm, "min_rm and max_rm")
    verdict, score, low, high = torch.tensor([verl_score, rm_score, min_rm, max_rm], dtype=torch.float64)
    z = torch.where(score.isfinite(), rescale(score, low, high, eps), 0.5)
    return place_in_band(verdict, z, alpha, beta).item()


def place_in_band(verdicts: torch.Tensor, z: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """Map rescaled scores into the band of their verdict (HERO, eq. 3).

    Args:
        verdicts: Shape (N,), each 1.0 right, 0.0 wrong or NaN unjudgeable.
        z: Shape (N,), clamped to [0, 1] here.
        alpha: Half width of the wrong band.
        beta: Half width of the right band.

    Returns:
        Shape (N,), float64; NaN where the verdict is NaN. No right answer is below `alpha`, the top of the wrong band,
        also where `alpha + beta` is 1 and rounding would let the bands cross.

    Raises:
        ValueError: A verdict that is none of the three.
    """
    strange = verdicts[~((verdicts == 0.0) | (verdicts == 1.0) | verdicts.isnan())]
    if strange.numel():
        raise InputError(f"A verdict must be 1.0 (right), 0.0 (wrong) or NaN (unjudgeable), got {strange[0].item()}.")
    z = z.to(torch.float64).clamp(0.0, 1.0)
    wrong = -alpha + 2.0 * alpha * z
    right = ((1.0 - beta) + 2.0 * beta * z).clamp(min=alpha)  # rounding may not let touching bands cross
    reward = torch.where(verdicts == 1.0, right, wrong)
    return reward.masked_fill(verdicts.isnan(), torch.nan)


def hybrid_rewards(
    verdicts: torch.Tensor,
    scores: torch.Tensor,
    group_size: int,
    eps: float = 1e-6,
    alpha: float = 0.1,
    beta: float = 0.1,
    singleton: Singleton = "middle",
    bounds: Bounds = "stratum",
    calibrated: tuple[float, float] | None = None,
) -> torch.Tensor:
    """Combine the verdicts and scores of whole groups (HERO, eq. 3).

    What a score is rescaled by, and what happens where that has no spread:

    - `stratum`: the lowest and highest score of the prompt's completions with the same verdict. A stratum whose
      finite scores do not differ (it has one member, or the reward model sees no difference) has no order to give:
      its members take z = 0.5, or z = 0 with `singleton="floor"`, which is what the equation gives literally.
    - `group`: the lowest and highest score of all the prompt's judged completions. A lone right answer has its place
      among the wrong ones; `singleton` decides only where no two finite scores of the group differ.
    - `calibrated`: the two numbers given. Every finite score has its place, a lone one too, and `singleton` decides
      nothing: each row equals [`combine_hybrid_score`] of it. Scores outside the bounds are clamped.

    Args:
        verdicts: Shape (N,), 1.0 right, 0.0 wrong, NaN unjudgeable. Rows of one prompt are contiguous.
        scores: Shape (N,), any real numbers. One that is not finite, or of a row that is unjudgeable, stays out of
            the bounds. One that is not finite takes z = 0.5.
        group_size: Completions per prompt; divides N.
        eps: Added to the spread of the bounds.
        alpha: Half width of the wrong band, in (0, 1].
        beta: Half width of the right band, in (0, 1]; `alpha + beta` at most 1.
        singleton: Where members of bounds without spread go: the middle of their band or its floor.
        bounds: What the scores are rescaled by.
        calibrated: The lowest and highest score of `bounds="calibrated"`, and only of that.

    Returns:
        Rewards, shape (N,), float64; NaN where the verdict is NaN.

    Raises:
        ValueError: Shapes that do not match, a group size that does not divide N, an unknown `singleton` or `bounds`,
            bad bands, calibrated bounds that are missing, not wanted, not finite or in the wrong order.

    One right answer and three wrong ones; the right one is alone in its stratum:

    >>> verdicts, scores = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([2.0, 1.0, 5.0, 2.0])
    >>> [round(r, 4) for r in hybrid_rewards(verdicts, scores, group_size=4).tolist()]
    [1.0, -0.1, 0.1, -0.05]
    """
    HybridSettings(eps, alpha, beta, singleton, bounds, calibrated)  # checks them
    _check_groups(verdicts, scores, group_size)
    verdicts = verdicts.to(torch.float64).reshape(-1, group_size)
    # Scores that differ in their last digits only would share a place in a narrow band of single precision.
    scores = scores.to(torch.float64).reshape(-1, group_size)
    counted = scores.isfinite() & ~verdicts.isnan()
    flat = 0.5 if singleton == "middle" else 0.0

    if calibrated is not None:
        low, high = scores.new_tensor(calibrated)
        z = rescale(scores, low, high, eps)
    elif bounds == "group":
        z = rescale_among(scores, counted, eps, flat)
    else:
        right = verdicts == 1.0
        among_right = rescale_among(scores, counted & right, eps, flat)
        z = torch.where(right, among_right, rescale_among(scores, counted & ~right, eps, flat))
    z = torch.where(counted, z, 0.5)  # a score that says nothing neither wins nor loses
    return place_in_band(verdicts.flatten(), z.flatten(), alpha, beta)


def read_verdicts(paid: torch.Tensor, correct_reward: float = 1.0) -> torch.Tensor:
    """Read verdicts off what a verifier pays, which may give a wrong answer something for its form.

    Args:
        paid: Shape (N,): `correct_reward` or more for a right answer, less for a wrong one, NaN for an unjudgeable.
        correct_reward: What the verifier pays for a right answer.

    Returns:
        Shape (N,), the dtype of `paid`: 1.0 right, 0.0 wrong, NaN unjudgeable.

    >>> read_verdicts(torch.tensor([5.0, 0.5, float("nan")]), correct_reward=5.0).tolist()
    [1.0, 0.0, nan]
    """
    # Rounded as the payments are: 0.1 in double precision is less than 0.1 in single precision, or more.
    right = paid >= torch.tensor(correct_reward, dtype=paid.dtype, device=paid.device)
    return torch.where(paid.isnan(), torch.nan, right.to(paid.dtype))


def count_non_finite(scores: torch.Tensor) -> int:
    """Count the NaN and infinite scores of rows that can be judged; refuse more than one row and 1 % of them.

    Raises:
        InputError: More than one, and more than 1 %.
    """
    broken = int((~scores.isfinite()).sum())
    if broken > max(1, len(scores) // 100):
        raise InputError(
            f"{broken} of {len(scores)} reward model scores are NaN or infinite; at most 1 % are put up with. "
            "Check the reward model's weights and dtype: bfloat16 or float32, never float16."
        )
    return broken


def _check_groups(verdicts: torch.Tensor, scores: torch.Tensor, group_size: int) -> None:
    if verdicts.dim() != 1 or verdicts.shape != scores.shape:
        raise InputError(
            "verdicts and scores must be one-dimensional and of equal length, got shapes "
            f"{tuple(verdicts.shape)} and {tuple(scores.shape)}."
        )
    if group_size < 1 or len(verdicts) % group_size:
        raise InputError(
            f"group_size must be at least 1 and divide the number of rows, got {group_size} for {len(verdicts)} rows."
        )
