"""What a step tells about its two judges.

Everywhere, `verdicts` (N,) are 1.0 right, 0.0 wrong or NaN unjudgeable; of the `scores` (N,) those that are not finite
do not count; rows of one prompt are contiguous, and `group_size`, the completions per prompt, divides N. A figure that
nothing speaks for is NaN.
"""

import torch

from trl_hybrid.hybrid.bounds import extremes
from trl_hybrid.hybrid.moments import deviation, mean


def group_shares(verdicts: torch.Tensor, group_size: int) -> dict[str, float]:
    """Count which groups a verifier alone could learn from.

    Returns:
        `pass_rate`, the share of right answers among the judged rows; `unjudged`, the share of rows without a
        verdict; and the shares of groups, each in [0, 1]:
        `mixed_groups` (a verifier alone has a gradient there), `all_right_groups` and `all_wrong_groups` (it has
        none). Groups without a judged row count as none of the three. NaN where nothing was judged.

    >>> group_shares(torch.tensor([1.0, 0.0, 0.0, 0.0]), group_size=2)
    {'pass_rate': 0.25, 'unjudged': 0.0, 'mixed_groups': 0.5, 'all_right_groups': 0.0, 'all_wrong_groups': 0.5}
    """
    kinds = group_kinds(verdicts, group_size)
    return {
        "pass_rate": verdicts.nanmean().item(),
        "unjudged": _share(verdicts.isnan()),
        **{f"{kind}_groups": _share(chosen) for kind, chosen in kinds.items()},
    }


def group_kinds(verdicts: torch.Tensor, group_size: int) -> dict[str, torch.Tensor]:
    """Tell which groups are of which kind.

    Returns:
        `mixed`, `all_right` and `all_wrong`, each of shape (N / group_size,), bool. A group without a judged row is
        none of the three.
    """
    groups = verdicts.reshape(-1, group_size)
    any_right, any_wrong = (groups == 1.0).any(dim=1), (groups == 0.0).any(dim=1)
    return {
        "mixed": any_right & any_wrong,
        "all_right": any_right & ~any_wrong,
        "all_wrong": any_wrong & ~any_right,
    }


def rescued_groups(verdicts: torch.Tensor, paid: torch.Tensor, group_size: int) -> dict[str, float]:
    """Count the groups that only the reward model makes speak, by what is `paid` (N,), NaN for rows that are left out.

    Returns:
        `rescued_groups`, the share of all groups whose judged rows are all right or all wrong (a verifier alone gives
        them no gradient) and that are paid differently. 0 where the verdicts alone are paid.

    >>> verdicts, paid = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([-0.1, 0.1, 1.0, 1.0])
    >>> rescued_groups(verdicts, paid, group_size=2)
    {'rescued_groups': 0.5}
    """
    kinds = group_kinds(verdicts, group_size)
    groups = paid.reshape(-1, group_size)
    low, high = extremes(groups, ~groups.isnan())
    return {"rescued_groups": _share((kinds["all_right"] | kinds["all_wrong"]) & (high > low).squeeze(-1))}


def scores_by_verdict(verdicts: torch.Tensor, scores: torch.Tensor) -> dict[str, float]:
    """Summarise the scores of right and of wrong answers.

    Returns:
        `score_right_mean`, `score_right_std`, `score_wrong_mean`, `score_wrong_std`; deviations of the population.
    """
    scores = scores.to(torch.float64)
    chosen = {name: (verdicts == verdict) & scores.isfinite() for name, verdict in (("right", 1.0), ("wrong", 0.0))}
    return {
        f"score_{name}_{moment}": of(scores, rows).item()
        for name, rows in chosen.items()
        for moment, of in (("mean", mean), ("std", deviation))
    }


def group_auc(verdicts: torch.Tensor, scores: torch.Tensor, group_size: int) -> torch.Tensor:
    """Measure in each group how well the reward model ranks right above wrong.

    Returns:
        Shape (N / group_size,), float64, in [0, 1]: the share of (right, wrong) pairs in which the right one scores
        higher, ties counted half; NaN in groups without such a pair.

    Of the pairs (2, 1), (2, 5) and (2, 2), one is won and one tied:

    >>> group_auc(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([2.0, 1.0, 5.0, 2.0]), group_size=4).tolist()
    [0.5]
    """
    verdicts, scores = verdicts.reshape(-1, group_size), scores.reshape(-1, group_size)
    right, wrong = (verdicts == 1.0) & scores.isfinite(), (verdicts == 0.0) & scores.isfinite()
    pairs = right.unsqueeze(2) & wrong.unsqueeze(1)  # (P, G right, G wrong)
    of_right, of_wrong = scores.unsqueeze(2), scores.unsqueeze(1)
    won = (of_right > of_wrong).to(torch.float64) + 0.5 * (of_right == of_wrong)
    return (won * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2))


def disagreements(verdicts: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Find the wrong answers that the reward model likes best: misses of the verifier, or hacks of the reward model.

    Returns:
        Shape (N,), bool: wrong, and among the highest tenth of the judged rows' scores (at least one row; rows that
        tie with the last of them too, but never the lowest score of all).

    >>> disagreements(torch.tensor([1.0, 0.0, 0.0, float("nan")]), torch.tensor([1.0, 4.0, 2.0, 9.0])).tolist()
    [False, True, False, False]
    """
    counted = scores.isfinite() & ~verdicts.isnan()
    among = scores[counted]
    if not len(among):
        return counted
    threshold = among.topk(max(1, len(among) // 10)).values[-1]
    return counted & (verdicts == 0.0) & (scores >= threshold) & (scores > among.min())


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """Correlate two columns (Pearson) over the rows in which both are finite.

    Args:
        first: Shape (N,), for instance scores.
        second: Shape (N,), for instance completion lengths in tokens.

    Returns:
        In [-1, 1]; NaN where a column does not vary.

    >>> round(correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10, 20, 30])), 4)
    1.0
    """
    both = first.isfinite() & second.isfinite()
    if both.sum() < 2:  # torch warns about one row
        return float("nan")
    return torch.corrcoef(torch.stack([first[both], second[both]]).to(torch.float64))[0, 1].item()


def weights_by_kind(verdicts: torch.Tensor, weights: torch.Tensor, group_size: int) -> dict[str, float]:
    """Average the difficulty weights (N,), equal within a group, over each kind of group.

    Returns:
        `weight_mixed`, `weight_all_right`, `weight_all_wrong`.
    """
    of_group = weights.to(torch.float64)[::group_size]
    return {
        f"weight_{kind}": mean(of_group, chosen).item() for kind, chosen in group_kinds(verdicts, group_size).items()
    }


def judge_diagnostics(
    verdicts: torch.Tensor,
    scores: torch.Tensor,
    paid: torch.Tensor,
    lengths: torch.Tensor,
    disagreeing: torch.Tensor,
    group_size: int,
) -> dict[str, float]:
    """Collect a step's figures.

    Args:
        verdicts: All processes' rows, shape (N,), groups contiguous.
        scores: Shape (N,).
        paid: What is optimised of the two judges, shape (N,), NaN for rows that are left out.
        lengths: Completion lengths in tokens, shape (N,).
        disagreeing: The rows of [`disagreements`], shape (N,), bool.
        group_size: Completions per prompt; divides N.

    Returns:
        The figures of [`group_shares`], [`rescued_groups`] and [`scores_by_verdict`]; `auc`, the mean of
        [`group_auc`] over the groups that have one, and `auc_groups`, how many these are; `disagreement`, the share
        of `disagreeing` among the judged rows; `score_length_correlation`, over the judged rows.
    """
    judged = ~verdicts.isnan()
    auc = group_auc(verdicts, scores, group_size)
    return {
        **group_shares(verdicts, group_size),
        **rescued_groups(verdicts, paid, group_size),
        **scores_by_verdict(verdicts, scores),
        "auc": auc.nanmean().item(),
        "auc_groups": float((~auc.isnan()).sum()),
        "disagreement": _share(disagreeing[judged]),
        "score_length_correlation": correlation(scores[judged], lengths[judged]),
    }


def _share(chosen: torch.Tensor) -> float:
    return chosen.float().mean().item()
