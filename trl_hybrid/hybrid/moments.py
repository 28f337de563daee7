"""Mean and deviation over some members of each row."""

import torch


def mean(values: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    """Average each row's members.

    Args:
        values: Shape (..., G), float64; members are finite.
        member: Shape (..., G), bool.

    Returns:
        Shape (...); NaN where a row has no member.
    """
    return values.where(member, torch.nan).nanmean(dim=-1)


def deviation(values: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    """Take the population standard deviation of each row's members.

    Args:
        values: Shape (..., G), float64; members are finite single-precision numbers, whose squares fit.
        member: Shape (..., G), bool.

    Returns:
        Shape (...); NaN where a row has no member.

    >>> values = torch.tensor([1.0, 3.0, 99.0], dtype=torch.float64)
    >>> deviation(values, values < 50.0).item()
    1.0
    """
    return mean((values - mean(values, member).unsqueeze(-1)).square(), member).sqrt()
