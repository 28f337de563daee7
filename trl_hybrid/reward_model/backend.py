"""What every placement of the weights offers."""

from collections.abc import Sequence
from typing import Protocol

from trl_hybrid.reward_model.plan import Row


class ScoringBackend(Protocol):
    """Where the weights live, behind one method."""

    def score(self, rows: Sequence[Row]) -> list[float]:
        """Score rows of token ids.

        Args:
            rows: Distinct rows of at least one token.

        Returns:
            One raw score per row, in the same order, NaN and infinities as they come.
        """
        ...
