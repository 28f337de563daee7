"""Which token rows go into which forward: equal rows once, known scores not again, padding bounded. No tensors."""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from math import isfinite


Row = tuple[int, ...]
"""Token ids of one rendered conversation."""


def deduplicate(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """Keep each distinct row once.

    Args:
        rows: Rows, equal ones allowed.

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


class ScoreCache:
    """Scores of the rows used last, found by the row's token ids.

    A row is kept as a 16-byte digest, so that the cache's size does not depend on how long rows are. Scores that are
    not finite are not kept: they may be a passing fault.

    Args:
        size: Rows to remember, the least recently used are forgotten first. 0 remembers nothing.

    Example:
        >>> cache = ScoreCache(size=1)
        >>> cache.put((1, 2), 0.5)
        >>> cache.put((3,), 0.25)
        >>> cache.get((1, 2)), cache.get((3,))
        (None, 0.25)
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(
                f"The score cache holds 0 rows or more, but got size={size}. Set it to 0 to switch it off."
            )
        self.size = size
        self._scores: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, row: Row) -> float | None:
        """Return the row's score, None where it is not known."""
        key = _digest(row)
        if key not in self._scores:
            return None
        self._scores.move_to_end(key)
        return self._scores[key]

    def put(self, row: Row, score: float) -> None:
        """Remember a finite score."""
        if not isfinite(score):
            return
        self._scores[_digest(row)] = score
        while len(self._scores) > self.size:
            self._scores.popitem(last=False)

    def state_dict(self) -> dict[str, float]:
        """Return the remembered scores by hexadecimal digest, the least recently used first."""
        return {key.hex(): score for key, score in self._scores.items()}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Remember a saved cache's scores, the most recently used as far as there is room."""
        kept = list(state.items())[max(0, len(state) - self.size) :]
        self._scores = OrderedDict((bytes.fromhex(key), score) for key, score in kept)


def _digest(row: Row) -> bytes:
    return blake2b(array("q", row).tobytes(), digest_size=16).digest()
