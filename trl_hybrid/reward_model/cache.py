"""Scores already computed, remembered by the row."""

from array import array
from collections import OrderedDict
from hashlib import blake2b
from math import isfinite

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.plan import Row


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
            raise InputError(
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
