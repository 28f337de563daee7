"""The hybrid reward: a verdict chooses the band, the reward model's score the place inside it.

HERO (arXiv 2510.07242, eq. 3): with `z` the score rescaled to [0, 1],

    wrong:  -alpha      + 2 * alpha * z     in [-alpha, alpha]
    right:  (1 - beta)  + 2 * beta  * z     in [1 - beta, 1 + beta]

so `alpha + beta < 1` keeps every right answer above every wrong one.
"""

import math
from typing import Literal

import torch


Singleton = Literal["middle", "floor"]


def check_bands(alpha: float, beta: float, eps: float, prefix: str = "") -> None:
    """Refuse bands that are empty or overlap.

    Args:
        alpha: Half width of the wrong band.
        beta: Half width of the right band.
        eps: Added to the spread of the scores.
        prefix: Put before the names in the message, as in `hybrid_alpha`.

    Raises:
        ValueError: `alpha` or `beta` outside (0, 1], `alpha + beta` above 1, or `eps` not a positive finite number.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0.0 < value <= 1.0:
            raise ValueError(f"{prefix}{name} must be above 0 and at most 1, got {value}. A usual value is 0.1.")
    if alpha + beta > 1.0 + 1e-9:
        raise ValueError(
            f"{prefix}alpha + {prefix}beta must be at most 1, got {alpha} + {beta} = {alpha + beta:g}: above 1 a "
            "wrong answer can be paid more than a right one. Lower one of them."
        )
    if not 0.0 < eps < math.inf:
        raise ValueError(f"{prefix}eps must be a positive finite number, got {eps}. A usual value is 1e-6.")


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
    if not (math.isfinite(min_rm) and math.isfinite(max_rm) and min_rm <= max_rm):
        raise ValueError(f"min_rm and max_rm must be finite with min_rm <= max_rm, got {min_rm} and {max_rm}.")
    z = (rm_score - min_rm) / (max_rm - min_rm + eps) if math.isfinite(rm_score) else 0.5
    verdict = torch.tensor(verl_score, dtype=torch.float64)
    return place_in_band(verdict, torch.tensor(z, dtype=torch.float64), alpha, beta).item()


def place_in_band(verdicts: torch.Tensor, z: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """Map rescaled scores into the band of their verdict (HERO, eq. 3).

    Args:
        verdicts: Shape (N,), each 1.0 right, 0.0 wrong or NaN unjudgeable.
        z: Shape (N,), clamped to [0, 1] here.
        alpha: Half width of the wrong band.
        beta: Half width of the right band.

    Returns:
        Shape (N,), float64; NaN where the verdict is NaN.

    Raises:
        ValueError: A verdict that is none of the three.
    """
    strange = verdicts[~((verdicts == 0.0) | (verdicts == 1.0) | verdicts.isnan())]
    if strange.numel():
        raise ValueError(f"A verdict must be 1.0 (right), 0.0 (wrong) or NaN (unjudgeable), got {strange[0].item()}.")
    z = z.to(torch.float64).clamp(0.0, 1.0)
    wrong = -alpha + 2.0 * alpha * z
    right = (1.0 - beta) + 2.0 * beta * z
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
) -> torch.Tensor:
    """Combine the verdicts and scores of whole groups, with bounds taken per stratum (HERO, eq. 3).

    A stratum is the completions of one prompt that share a verdict. A stratum whose finite scores do not differ (it
    has one member, or the reward model sees no difference) has no order to give: its members take z = 0.5, or z = 0
    with `singleton="floor"`, which is what the equation gives literally.

    Args:
        verdicts: Shape (N,), 1.0 right, 0.0 wrong, NaN unjudgeable. Rows of one prompt are contiguous.
        scores: Shape (N,), any real numbers. One that is not finite takes z = 0.5 and stays out of the bounds.
        group_size: Completions per prompt; divides N.
        eps: Added to the spread of each stratum.
        alpha: Half width of the wrong band, in (0, 1].
        beta: Half width of the right band, in (0, 1]; `alpha + beta` at most 1.
        singleton: Where a stratum without spread goes: the middle of its band or its floor.

    Returns:
        Rewards, shape (N,), float64; NaN where the verdict is NaN.

    Raises:
        ValueError: Shapes that do not match, a group size that does not divide N, an unknown `singleton`, bad bands.

    One right answer and three wrong ones; the right one is alone in its stratum:

    >>> verdicts, scores = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([2.0, 1.0, 5.0, 2.0])
    >>> [round(r, 4) for r in hybrid_rewards(verdicts, scores, group_size=4).tolist()]
    [1.0, -0.1, 0.1, -0.05]
    """
    check_bands(alpha, beta, eps)
    _check_groups(verdicts, scores, group_size)
    if singleton not in ("middle", "floor"):
        raise ValueError(f"singleton must be 'middle' or 'floor', got {singleton!r}.")
    verdicts = verdicts.to(torch.float64).view(-1, group_size)
    scores = scores.to(torch.float64).view(-1, group_size)

    z = torch.full_like(scores, 0.5)
    for verdict in (0.0, 1.0):
        member = (verdicts == verdict) & scores.isfinite()
        low = scores.masked_fill(~member, torch.inf).amin(dim=1, keepdim=True)
        high = scores.masked_fill(~member, -torch.inf).amax(dim=1, keepdim=True)
        flat = 0.5 if singleton == "middle" else 0.0
        rescaled = torch.where(high > low, (scores - low) / (high - low + eps), flat)
        z = torch.where(member, rescaled, z)
    return place_in_band(verdicts.flatten(), z.flatten(), alpha, beta)


def _check_groups(verdicts: torch.Tensor, scores: torch.Tensor, group_size: int) -> None:
    if verdicts.dim() != 1 or verdicts.shape != scores.shape:
        raise ValueError(
            "verdicts and scores must be one-dimensional and of equal length, got shapes "
            f"{tuple(verdicts.shape)} and {tuple(scores.shape)}."
        )
    if group_size < 1 or len(verdicts) % group_size:
        raise ValueError(
            f"group_size must be at least 1 and divide the number of rows, got {group_size} for {len(verdicts)} rows."
        )
