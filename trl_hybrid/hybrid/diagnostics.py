"""What a step tells about its two judges."""

import torch


def group_shares(verdicts: torch.Tensor, group_size: int) -> dict[str, float]:
    """Count which groups a verifier alone could learn from.

    Args:
        verdicts: Shape (N,), 1.0 right, 0.0 wrong, NaN unjudgeable. Rows of one prompt are contiguous.
        group_size: Completions per prompt; divides N.

    Returns:
        `pass_rate`, the share of right answers among the judged rows; `unjudged`, the share of rows without a
        verdict; and the shares of groups, each in [0, 1]:
        `mixed_groups` (a verifier alone has a gradient there), `all_right_groups` and `all_wrong_groups` (it has
        none). Groups without a judged row count as none of the three. NaN where nothing was judged.

    >>> group_shares(torch.tensor([1.0, 0.0, 0.0, 0.0]), group_size=2)
    {'pass_rate': 0.25, 'unjudged': 0.0, 'mixed_groups': 0.5, 'all_right_groups': 0.0, 'all_wrong_groups': 0.5}
    """
    groups = verdicts.view(-1, group_size)
    any_right, any_wrong = (groups == 1.0).any(dim=1), (groups == 0.0).any(dim=1)
    return {
        "pass_rate": verdicts.nanmean().item(),
        "unjudged": _share(verdicts.isnan()),
        "mixed_groups": _share(any_right & any_wrong),
        "all_right_groups": _share(any_right & ~any_wrong),
        "all_wrong_groups": _share(any_wrong & ~any_right),
    }


def _share(chosen: torch.Tensor) -> float:
    return chosen.float().mean().item()
