"""Mean and deviation over some members of each row, for scores of any size."""

import torch

from trl_hybrid.hybrid.bounds import extremes, rescale


def mean(values: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    """Average each row's members.

    Args:
        values: Shape (..., G), float64; members are finite.
        member: Shape (..., G), bool.

    Returns:
        Shape (...); NaN where a row has no member.
    """
    # Divided before it is summed: the sum of large scores overflows.
    return (values.masked_fill(~member, 0.0) / member.sum(dim=-1, keepdim=True)).sum(dim=-1)


def deviation(values: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    """Take the population standard deviation of each row's members.

    Args:
        values: Shape (..., G), float64; members are finite.
        member: Shape (..., G), bool.

    Returns:
        Shape (...); NaN where a row has no member, exactly 0 where its members are equal.

    >>> values = torch.tensor([1.0, 3.0, 99.0], dtype=torch.float64)
    >>> deviation(values, values < 50.0).item()
    1.0
    """
    low, high = extremes(values, member)
    # Squares of scores overflow and underflow; those of the places between the two extremes do not.
    place = torch.where(member & (high > low), rescale(values, low, high, eps=0.0), 0.0)
    variance = mean((place - mean(place, member).unsqueeze(-1)).square(), member)
    return 2.0 * variance.sqrt() * (high * 0.5 - low * 0.5).squeeze(-1)
