"""Which keys each stretch of a packed row sees, and how stretches are laid out where no kernel takes them as is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import torch


Span = tuple[int, int]
"""Begin and end of a stretch of a packed row."""

WASTED_PAIRS = {"cpu": 4096, "cuda": 1_000_000}
"""Padded pairs of a query and a key that cost about as much as one more attention call, by kind of device."""


@dataclass(frozen=True)
class Block:
    """Segments of similar length, padded to the longest and attended in one call.

    Attributes:
        segments: Which ones, n of them.
        queries: Most queries of one, q.
        shared: Most keys of a shared start; shorter starts are padded on the left.
    """

    segments: tuple[int, ...]
    queries: int
    shared: int

    @property
    def keys(self) -> int:
        """Keys of each of them, k."""
        return self.shared + self.queries


@dataclass(frozen=True)
class Segments:
    """Which keys each stretch of a packed row sees: a shared start's, where it has one, and its own up to each token.

    Attributes:
        own: Begin and end of each segment in the packed row, in order and without gaps.
        shared: Begin and end of the shared start that comes before each segment; equal for none.
        device: Where the packed row lies.
    """

    own: tuple[Span, ...]
    shared: tuple[Span, ...]
    device: torch.device

    _masks: dict[torch.dtype, list[torch.Tensor | None]] = field(default_factory=dict, compare=False, repr=False)

    def __iter__(self) -> Iterator[tuple[Span, Span]]:
        return zip(self.own, self.shared, strict=True)

    @cached_property
    def query_ends(self) -> torch.Tensor:
        """Cumulative lengths of the segments' queries, int32, shape (segments + 1,)."""
        return self._ends([end - begin for begin, end in self.own])

    @cached_property
    def key_ends(self) -> torch.Tensor:
        """Cumulative lengths of the segments' keys, int32, shape (segments + 1,)."""
        return self._ends(self._key_lengths)

    @cached_property
    def longest(self) -> tuple[int, int]:
        """Most queries and most keys of a segment."""
        return max(end - begin for begin, end in self.own), max(self._key_lengths)

    @cached_property
    def key_index(self) -> torch.Tensor:
        """Positions in the packed row of all segments' keys, shared ones repeated, shape (keys,)."""
        spans = [torch.arange(*span) for own, shared in self for span in (shared, own)]
        return torch.cat(spans).to(self.device, non_blocking=True)

    @cached_property
    def blocks(self) -> list[Block]:
        """The segments as blocks, each of which is one call."""
        lengths = [(end - begin, stop - first) for (begin, end), (first, stop) in self]
        return cut_blocks(lengths, WASTED_PAIRS.get(self.device.type, WASTED_PAIRS["cuda"]))

    @cached_property
    def block_queries(self) -> torch.Tensor:
        """Positions in the packed row of all blocks' queries, padding included, shape (sum of n * q,)."""
        places = [
            _padded(self.own[segment], block.queries, left=0) for block in self.blocks for segment in block.segments
        ]
        return torch.cat(places).to(self.device, non_blocking=True)

    @cached_property
    def block_keys(self) -> torch.Tensor:
        """Positions in the packed row of all blocks' keys, padding included, shape (sum of n * k,)."""
        places = [
            part
            for block in self.blocks
            for segment in block.segments
            for part in (
                _padded(self.shared[segment], block.shared, left=block.shared - self._shared_length(segment)),
                _padded(self.own[segment], block.queries, left=0),
            )
        ]
        return torch.cat(places).to(self.device, non_blocking=True)

    @cached_property
    def block_places(self) -> torch.Tensor:
        """Where each token of the packed row stands among the blocks' queries, shape (T,)."""
        places = torch.empty(self.own[-1][1], dtype=torch.long)
        start = 0
        for block in self.blocks:
            for segment in block.segments:
                begin, end = self.own[segment]
                places[begin:end] = torch.arange(start, start + end - begin)
                start += block.queries
        return places.to(self.device, non_blocking=True)

    def masks(self, dtype: torch.dtype) -> list[torch.Tensor | None]:
        """Return each block's additive mask, (n or 1, 1, q, k), None where the causal edge is all; made once a row."""
        if dtype not in self._masks:  # all layers of a forward ask for the same
            self._masks[dtype] = [self._mask(block, dtype) for block in self.blocks]
        return self._masks[dtype]

    def _mask(self, block: Block, dtype: torch.dtype) -> torch.Tensor | None:
        if not block.shared:
            return None
        # All of the shared start is seen, so that the causal edge begins behind it.
        mask = torch.full((1, 1, block.queries, block.keys), -torch.inf, dtype=dtype).triu(block.shared + 1)
        padding = [block.shared - self._shared_length(segment) for segment in block.segments]
        if any(padding):
            mask = mask.repeat(len(padding), 1, 1, 1)
            for row, pad in zip(mask, padding, strict=True):
                row[..., :pad] = -torch.inf
        return mask.to(self.device, non_blocking=True)

    def _shared_length(self, segment: int) -> int:
        first, stop = self.shared[segment]
        return stop - first

    @property
    def _key_lengths(self) -> list[int]:
        return [own[1] - own[0] + shared[1] - shared[0] for own, shared in self]

    def _ends(self, lengths: list[int]) -> torch.Tensor:
        ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return ends.to(self.device, non_blocking=True)


def _padded(span: Span, length: int, left: int) -> torch.Tensor:
    """Return a span's positions in a row of `length`, padded with a position that is there."""
    begin, end = span
    places = torch.full((length,), begin)
    places[left : left + end - begin] = torch.arange(begin, end)
    return places


def cut_blocks(lengths: Sequence[tuple[int, int]], wasted_pairs: int) -> list[Block]:
    """Cut segments into blocks of similar length, the longest first; those without a shared start apart.

    Args:
        lengths: Queries of each segment, at least 1, and keys of its shared start.
        wasted_pairs: Bound on the pairs of a query and a key that a block computes for nothing.

    Returns:
        Blocks in which every segment appears exactly once.

    Example:
        >>> cut_blocks([(9, 0), (2, 9), (3, 9), (30, 9)], wasted_pairs=20)
        [Block(segments=(3,), queries=30, shared=9), Block(segments=(2, 1), queries=3, shared=9), Block(segments=(0,), queries=9, shared=0)]
    """  # noqa: E501
    blocks: list[Block] = []
    real = 0
    for segment in sorted(
        range(len(lengths)), key=lambda index: (not lengths[index][1], *(-n for n in lengths[index]))
    ):
        queries, shared = lengths[segment]
        pairs = queries * (queries + shared)
        if blocks and bool(blocks[-1].shared) == bool(shared):
            last = blocks[-1]
            wider = Block((*last.segments, segment), last.queries, max(last.shared, shared))
            if len(wider.segments) * wider.queries * wider.keys - real - pairs <= wasted_pairs:
                blocks[-1], real = wider, real + pairs
                continue
        blocks.append(Block((segment,), queries, shared))
        real = pairs
    return blocks
