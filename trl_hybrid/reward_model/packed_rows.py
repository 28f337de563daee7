"""A batch of rows as one packed row."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trl_hybrid.packing.segments import Segments
from trl_hybrid.reward_model.plan import Batch, Row


@dataclass(frozen=True)
class PackedRows:
    """A batch of rows as one row of tokens.

    Attributes:
        ids: Token ids, shape (T,).
        positions: Each token's position in its own row, shape (T,).
        last: Index of each row's last token, shape (B,), in the order of `rows_of(batch)`.
        segments: Who sees whom.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    last: torch.Tensor
    segments: Segments

    def to(self, device: torch.device) -> "PackedRows":
        """Return the same rows on a device."""
        segments = Segments(self.segments.own, self.segments.shared, device)
        return PackedRows(self.ids.to(device), self.positions.to(device), self.last.to(device), segments)


def pack_rows(rows: Sequence[Row], batch: Batch) -> PackedRows:
    """Lay the rows of a batch end to end, on the CPU. A family's shared start comes once, before its members' ends."""
    ids: list[int] = []
    positions: list[int] = []
    last: list[int] = []
    own: list[tuple[int, int]] = []
    shared: list[tuple[int, int]] = []

    def add(tokens: Row, start: tuple[int, int]) -> None:
        begin, first = len(ids), start[1] - start[0]
        ids.extend(tokens)
        positions.extend(range(first, first + len(tokens)))
        own.append((begin, len(ids)))
        shared.append(start)

    for family in batch:
        start = (len(ids), len(ids) + family.shared)
        if family.shared:
            add(rows[family.rows[0]][: family.shared], (0, 0))
        for row in family.rows:
            # Positions go on where the start ends, though other members' ends lie between.
            add(rows[row][family.shared :], start)
            last.append(len(ids) - 1)
    # Lists until here: a tensor for each of hundreds of short stretches costs more than the stretches.
    segments = Segments(tuple(own), tuple(shared), torch.device("cpu"))
    return PackedRows(torch.tensor(ids), torch.tensor(positions), torch.tensor(last), segments)
