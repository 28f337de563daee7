"""What other papers make of the same verdicts and scores: advantages, from whole groups, as pure functions.

Shapes: `verdicts` and `scores` are (N,), rows of one prompt contiguous, `group_size` rows each; what is returned is
(N,), float64. A verdict is 1.0 right, 0.0 wrong or NaN unjudgeable; a row without one gets advantage 0 and does not
count in its group. Deviations are those of a sample (n - 1), as in TRL, verl and the papers' own code.

Where an equation was read in a paper's text or in its authors' code, the docstring says which.
"""

import torch


EPS = 1e-6
"""Added to deviations: the value in the code of NGRPO and PAPO, and verl's for GRPO."""


def verdict_sign(verdicts: torch.Tensor, scores: torch.Tensor, group_size: int) -> torch.Tensor:
    """Pay each answer by its verdict alone, against a fixed reference: `A = 2 r - 1` (arXiv 2605.07689).

    From the paper's abstract, which states the equation; its full text was not at hand, so whatever else its training
    does is not here.

    >>> verdict_sign(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4), group_size=2).tolist()
    [1.0, -1.0, -1.0, -1.0]
    """
    return (2.0 * verdicts.double() - 1.0).nan_to_num(nan=0.0)


def group_normalised(verdicts: torch.Tensor, scores: torch.Tensor, group_size: int) -> torch.Tensor:
    """Normalise verdicts within their group, as GRPO does: `(r - mean) / std`."""
    grouped = verdicts.double().reshape(-1, group_size)
    return normalised(grouped, ~grouped.isnan()).flatten()


def virtual_right_answer(verdicts: torch.Tensor, scores: torch.Tensor, group_size: int) -> torch.Tensor:
    """Normalise verdicts as if each group had one right answer more (NGRPO, arXiv 2509.18851, advantage calibration).

    Mean and deviation are those of the group's rewards and of one virtual reward of 1, the highest there is; so all
    answers of an all-wrong group are pushed away, and an all-right group is left alone. From the authors' code
    (github.com/nangongrui-ngr/NGRPO at e7a3804, `compute_ngrpo_outcome_advantage`), which gives the figures of the
    paper's example. The paper's asymmetric clipping (0.16 below, 0.24 above) is TRL's `epsilon` and `epsilon_high`.

    >>> [round(a, 2) for a in virtual_right_answer(torch.tensor([1.0] + 7 * [0.0]), torch.zeros(8), 8).tolist()][:2]
    [1.76, -0.5]
    """
    grouped = verdicts.double().reshape(-1, group_size)
    with_virtual = torch.cat([grouped, torch.ones_like(grouped[:, :1])], dim=1)
    return normalised(with_virtual, ~with_virtual.isnan())[:, :-1].flatten()


def consistent_only(
    verdicts: torch.Tensor, scores: torch.Tensor, group_size: int, kept: int | None = None
) -> torch.Tensor:
    """Train on right answers that score high and wrong ones that score low only (PROF, arXiv 2509.03403).

    Verdicts are normalised over these. Of each group `kept` = k+ + k- answers stay, k+ right and k- wrong, with k+ k-
    as large as it can be; of the right ones those of the highest scores, of the wrong ones those of the lowest ("Both"
    in the paper). The others are not trained on: advantage 0. From the authors' code
    (github.com/amazon-science/PROF-GRPO at 8164ec2, `prof_grpo_both`, `filter_trajectories`), which keeps 4 of 8.
    There the score is a process reward model's mean over steps, less a penalty on the number of steps; here it is the
    reward model's one score, and there is no penalty. A score that is not finite counts as the lowest of the right and
    the highest of the wrong ones.

    Args:
        verdicts: Shape (N,).
        scores: Shape (N,).
        group_size: Answers per prompt.
        kept: Answers to keep of each group; half of them by default.

    >>> verdicts, scores = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([2.0, 5.0, 1.0, 9.0])
    >>> [round(a, 4) for a in consistent_only(verdicts, scores, group_size=4).tolist()]
    [0.0, 0.7071, 0.0, -0.7071]
    """
    kept = group_size // 2 if kept is None else kept
    grouped = verdicts.double().reshape(-1, group_size)
    right, wrong = grouped == 1.0, grouped == 0.0
    rights, wrongs = right.sum(dim=1), wrong.sum(dim=1)
    half = torch.full_like(rights, kept // 2)
    keep_right = half.maximum(kept - wrongs).minimum(rights)
    stays = _highest(scores, right, keep_right) | _highest(-scores, wrong, kept - keep_right)
    return normalised(grouped, stays).flatten()


def quality_of_the_right(verdicts: torch.Tensor, scores: torch.Tensor, group_size: int) -> torch.Tensor:
    """Add to the normalised verdicts the right answers' scores, normalised among themselves (PAPO, arXiv 2603.26535).

    `A = A_out + A_proc`; A_proc is 0 for wrong answers, and where fewer than two right ones have a score or all score
    the same. From the authors' code (github.com/tanzelin430/PAPO at 277dac1, `compute_grpo_dual_advantage`, weight
    of A_proc 1). There the score is a rubric's (0, 0.5 or 1), here the reward model's.

    >>> verdicts, scores = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([3.0, 1.0, 9.0, 2.0])
    >>> [round(a, 4) for a in quality_of_the_right(verdicts, scores, group_size=4).tolist()]
    [1.5731, 0.1589, -0.866, -0.866]
    """
    grouped = scores.double().reshape(-1, group_size)
    right = (verdicts.reshape(-1, group_size) == 1.0) & grouped.isfinite()
    return group_normalised(verdicts, scores, group_size) + normalised(grouped, right).flatten()


def uniform_verdicts(verdicts: torch.Tensor, group_size: int) -> torch.Tensor:
    """Mark the answers of groups of one verdict: 1.0 all right, -1.0 all wrong, 0.0 in other groups. Shape (N,).

    >>> uniform_verdicts(torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0]), group_size=2).tolist()
    [1.0, 1.0, -1.0, -1.0, 0.0, 0.0]
    """
    grouped = verdicts.double().reshape(-1, group_size)
    known = ~grouped.isnan()
    all_right, all_wrong = (((grouped == value) | ~known).all(dim=1, keepdim=True) for value in (1.0, 0.0))
    return ((all_right.double() - all_wrong.double()) * known).flatten()


def entropy_shaped(
    advantages: torch.Tensor, uniform: torch.Tensor, entropies: torch.Tensor, mask: torch.Tensor, alpha: float = 0.1
) -> torch.Tensor:
    """Pay each token of a group of one verdict by the policy's entropy there (RL-ZVP, arXiv 2509.21880, eq. 5).

    With H the entropy at a token, in nats: `alpha H` in all-right groups, `-alpha (max H - H)` in all-wrong ones, the
    maximum over the answer's tokens; other groups keep GRPO's advantage (eq. 1). From the paper's text, version 1;
    alpha 0.1 is the best in its table 3.

    Args:
        advantages: Of each answer, shape (B,): `group_normalised`.
        uniform: Shape (B,): `uniform_verdicts`.
        entropies: Shape (B, T), not differentiated through.
        mask: Shape (B, T), 1 at the answer's own tokens.
        alpha: Scale of the entropies.

    Returns:
        Shape (B, T), the dtype of `advantages`; what it holds outside the mask means nothing.

    >>> ones, entropies = torch.ones(2, 2), torch.tensor([[0.5, 0.25], [0.5, 0.25]])
    >>> entropy_shaped(torch.zeros(2), torch.tensor([1.0, -1.0]), entropies, ones, alpha=1.0).tolist()
    [[0.5, 0.25], [-0.0, -0.25]]
    """
    entropies = entropies.detach().to(advantages)
    highest = entropies.masked_fill(mask == 0, 0.0).amax(dim=1, keepdim=True)
    uniform = uniform.unsqueeze(1)
    shaped = torch.where(uniform > 0.0, alpha * entropies, -alpha * (highest - entropies))
    return torch.where(uniform == 0.0, advantages.unsqueeze(1), shaped)


def normalised(values: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    """Subtract the mean of each row's members and divide by their deviation.

    Args:
        values: Shape (P, G), float64.
        member: Shape (P, G), bool.

    Returns:
        Shape (P, G); 0 for those that are no members, and where fewer than two members differ.
    """
    count = member.sum(dim=1, keepdim=True)
    centred = (values - values.where(member, 0.0).sum(dim=1, keepdim=True) / count).where(member, 0.0)
    deviation = (centred.square().sum(dim=1, keepdim=True) / (count - 1)).sqrt()
    return torch.where(deviation > EPS, centred / (deviation + EPS), 0.0)


def _highest(scores: torch.Tensor, member: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Choose `count` (P,) members of each row, those of the highest scores; the first of equal ones. Shape (P, G)."""
    scores = scores.double().reshape(member.shape)
    lowest = torch.finfo(scores.dtype).min
    ranked = scores.where(scores.isfinite(), lowest).masked_fill(~member, -torch.inf)
    place = ranked.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return member & (place < count.unsqueeze(1))
