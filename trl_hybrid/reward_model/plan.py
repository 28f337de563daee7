"""Which token rows go into which forward or request: equal rows once, shared starts once, padding bounded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


Row = tuple[int, ...]
"""Token ids of one rendered conversation."""


@dataclass(frozen=True)
class Family:
    """Rows that go through a forward together because they start alike.

    Attributes:
        shared: Tokens at the start that all members have in common and that are computed once; less than the
            shortest member's length. 0 for a row on its own.
        rows: Indices of the members.
    """

    shared: int
    rows: tuple[int, ...]


Batch = list[Family]
"""What goes into one forward."""


def deduplicate(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """Keep each distinct row once.

    Returns:
        The distinct rows in order of first appearance, and for every input row the index of its distinct row.

    Example:
        >>> deduplicate([(1, 2), (3,), (1, 2)])
        ([(1, 2), (3,)], [0, 1, 0])
    """
    slots: dict[Row, int] = {}
    index = [slots.setdefault(row, len(slots)) for row in rows]
    return list(slots), index


def cut_batches(lengths: Sequence[int], token_budget: int, padding_budget: int | None = None) -> list[list[int]]:
    """Cut rows into batches of similar length, the longest rows first.

    A batch of n rows costs n times its longest row. Starting with the longest makes a lack of memory show at once.

    Args:
        lengths: Tokens of each row, at least 1 each.
        token_budget: Bound on a batch's tokens, padding included. A longer row goes alone.
        padding_budget: Bound on a batch's padding tokens, None for no bound of its own. Where a forward's fixed cost
            equals that of so many tokens, opening another batch is then never much dearer than padding.

    Returns:
        Row indices of each batch. Every index appears exactly once.

    Example:
        >>> cut_batches([3, 9, 2, 10], token_budget=20)
        [[3, 1], [0, 2]]
        >>> cut_batches([3, 9, 2, 10], token_budget=20, padding_budget=0)
        [[3], [1], [0], [2]]
    """
    batches: list[list[int]] = []
    longest = padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        gap = longest - lengths[row]
        fits = bool(batches) and longest * (len(batches[-1]) + 1) <= token_budget
        if fits and (padding_budget is None or padding + gap <= padding_budget):
            batches[-1].append(row)
            padding += gap
        else:
            batches.append([row])
            longest, padding = lengths[row], 0
    return batches


def share_starts(rows: Sequence[Row], token_budget: int, least: int = 16) -> list[Family]:
    """Group rows so that the fewest tokens are computed, if the start that a group shares is computed once.

    In sorted order the rows of one prompt stand together. Families are runs of that order, and of all its cuts into
    runs the one with the fewest tokens is found from left to right.

    Args:
        rows: Distinct rows of at least one token.
        token_budget: Bound on a family's tokens, shared ones counted once. A longer row goes alone.
        least: Fewest tokens worth sharing: a family's attention is computed in pieces, each of which costs a little.

    Returns:
        Families in which every row index appears exactly once.

    Example:
        >>> share_starts([(1, 2, 3, 4), (9, 9), (1, 2, 3, 5, 6)], token_budget=100, least=2)
        [Family(shared=3, rows=(0, 2)), Family(shared=0, rows=(1,))]
    """
    order = sorted(range(len(rows)), key=lambda index: rows[index])
    lengths = [len(rows[index]) for index in order]
    common = [0] + [common_start(rows[one], rows[two]) for one, two in pairwise(order)]

    best = [0]  # fewest tokens for the first so many rows of the order
    cut: list[tuple[int, int]] = []  # where the last of their families begins, and what it shares
    for end in range(1, len(order) + 1):
        best.append(best[end - 1] + lengths[end - 1])
        cut.append((end - 1, 0))
        shared, total = lengths[end - 1] - 1, lengths[end - 1]
        for begin in range(end - 2, -1, -1):
            shared = min(shared, common[begin + 1], lengths[begin] - 1)
            total += lengths[begin]
            tokens = total - (end - begin - 1) * shared
            if shared < max(1, least) or tokens > token_budget:
                break
            if best[begin] + tokens < best[end]:
                best[end], cut[end - 1] = best[begin] + tokens, (begin, shared)

    families = []
    end = len(order)
    while end:
        begin, shared = cut[end - 1]
        families.append(Family(shared, tuple(order[begin:end])))
        end = begin
    return families[::-1]


def pack(families: Sequence[Family], lengths: Sequence[int], token_budget: int) -> list[Batch]:
    """Fill forwards with families up to the token budget, large families first (first fit, decreasing).

    Starting with the largest makes a lack of memory show at once.

    Args:
        families: What must stay together.
        lengths: Tokens of each row that the families index.
        token_budget: Bound on a batch's tokens, shared ones counted once. A larger family goes alone.

    Returns:
        Batches in which every family appears exactly once.

    Example:
        >>> pack([Family(0, (0,)), Family(2, (1, 2)), Family(0, (3,))], [3, 5, 6, 2], token_budget=12)
        [[Family(shared=2, rows=(1, 2)), Family(shared=0, rows=(0,))], [Family(shared=0, rows=(3,))]]
    """
    batches: list[Batch] = []
    room: list[int] = []
    for family in sorted(families, key=lambda family: -family_tokens(family, lengths)):
        tokens = family_tokens(family, lengths)
        slot = next((slot for slot, left in enumerate(room) if tokens <= left), None)
        if slot is None:
            batches.append([family])
            room.append(token_budget - tokens)
        else:
            batches[slot].append(family)
            room[slot] -= tokens
    return batches


def family_tokens(family: Family, lengths: Sequence[int]) -> int:
    """Count the tokens that a family's forward computes."""
    return sum(lengths[row] for row in family.rows) - family.shared * (len(family.rows) - 1)


def cut_requests(rows: Sequence[Row], token_budget: int) -> list[list[int]]:
    """Cut rows into requests, those that start alike together.

    Args:
        rows: Rows of at least one token.
        token_budget: Bound on a request's tokens. A longer row goes alone.

    Returns:
        Row indices of each request. Every index appears exactly once.

    Example:
        >>> cut_requests([(1, 2, 3), (9, 9), (1, 2, 4)], token_budget=6)
        [[0, 2], [1]]
    """
    requests: list[list[int]] = []
    room = 0
    for row in sorted(range(len(rows)), key=lambda row: rows[row]):
        if len(rows[row]) > room:
            requests.append([])
            room = token_budget
        requests[-1].append(row)
        room -= len(rows[row])
    return requests


def rows_of(batch: Batch) -> Iterator[int]:
    """Yield the indices of a batch's rows, in the order in which a forward gives their scores."""
    return (row for family in batch for row in family.rows)


def common_start(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens that two rows (both tuples, or both lists) share at their start.

    Example:
        >>> common_start((1, 2, 3), (1, 2, 4, 5))
        2
    """
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
