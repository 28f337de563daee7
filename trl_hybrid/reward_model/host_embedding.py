"""A token embedding that stays in host memory, of which the device gets the rows that it needs."""

import torch
from torch.nn import functional as F


PIECES = 2
"""One is filled while the other is copied."""

PIECE_ROWS = 1024
"""Rows that are gathered before they are copied: 7 MB of a 7B model's, which stay in the processor's cache."""


class HostEmbedding:
    """Looks tokens up in host memory and brings them to the device.

    A table of a gigabyte holds few rows that a batch needs, and most of its tokens come again and again: each distinct
    one is gathered and copied once, and spread over its places on the device. Rows are gathered into two kept pieces
    of pinned memory in turns, so that one is filled while the other is copied, and no page is fetched anew.

    Args:
        table: The embedding, shape (V, H), on the CPU.
        device: Where it is needed. On the CPU nothing is pinned and copies are plain.
        piece_rows: Rows in each of the two pieces.
    """

    def __init__(self, table: torch.Tensor, device: torch.device, piece_rows: int = PIECE_ROWS) -> None:
        self.table = table
        self.device = device
        on_gpu = device.type == "cuda"
        pieces = torch.empty(PIECES, piece_rows, table.shape[1], dtype=table.dtype, pin_memory=on_gpu)
        self.pieces = list(pieces)
        self.copied = [torch.cuda.Event() for _ in self.pieces] if on_gpu else []

    def look_up(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (T, H), on the device, of token ids (T,) on the CPU."""
        distinct, places = ids.unique(return_inverse=True)
        rows = torch.empty(len(distinct), self.table.shape[1], dtype=self.table.dtype, device=self.device)
        piece_rows = len(self.pieces[0])
        for number, first in enumerate(range(0, len(distinct), piece_rows)):
            self._bring(distinct[first : first + piece_rows], rows[first : first + piece_rows], number % PIECES)
        return F.embedding(places.to(self.device), rows)

    def _bring(self, ids: torch.Tensor, rows: torch.Tensor, turn: int) -> None:
        """Gather rows into a piece, once its last copy is over, and start to copy them.

        The copy is on the stream that computes: there it is in order with what uses `rows`, and nothing else waits
        there when a pass begins, since the last one ended with its scores.
        """
        piece = self.pieces[turn][: len(ids)]
        if self.copied:
            self.copied[turn].synchronize()  # at once before the first copy
        torch.index_select(self.table, 0, ids, out=piece)
        rows.copy_(piece, non_blocking=True)
        if self.copied:
            self.copied[turn].record(torch.cuda.current_stream(self.device))
