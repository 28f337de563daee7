"""Rows end to end in one packed row, and the attention that keeps them apart.

The attention function is registered with transformers' attention interface under `ATTENTION`; no model is patched. It
finds the segments in the keyword argument `packing`, which models hand through to it.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import isclose, sqrt
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface

from trl_hybrid.reward_model.plan import Batch, Row


try:  # torch 2.10 and newer
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None

ATTENTION = "trl_hybrid_packed"


@dataclass(frozen=True)
class Segments:
    """Which keys each stretch of a packed row sees: a shared start's, where it has one, and its own up to each token.

    Attributes:
        own: Begin and end of each segment in the packed row, in order and without gaps.
        shared: Begin and end of the shared start that comes before each segment; equal for none.
        device: Where the packed row lies.
    """

    own: tuple[tuple[int, int], ...]
    shared: tuple[tuple[int, int], ...]
    device: torch.device

    _masks: dict[torch.dtype, list[torch.Tensor | None]] = field(default_factory=dict, compare=False, repr=False)

    def masks(self, dtype: torch.dtype) -> list[torch.Tensor | None]:
        """Return each segment's additive mask (queries, keys), None without a shared start; made once a batch."""
        if dtype not in self._masks:  # all layers of a forward ask for the same
            self._masks[dtype] = [self._mask(own, shared, dtype) for own, shared in self]
        return self._masks[dtype]

    def _mask(self, own: tuple[int, int], shared: tuple[int, int], dtype: torch.dtype) -> torch.Tensor | None:
        queries, before = own[1] - own[0], shared[1] - shared[0]
        if not before:
            return None
        # All of the shared start is seen, so that the causal edge begins behind it.
        mask = torch.full((queries, before + queries), -torch.inf, dtype=dtype, device=self.device)
        return mask.triu(before + 1)

    def __iter__(self) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
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

    @property
    def _key_lengths(self) -> list[int]:
        return [own[1] - own[0] + shared[1] - shared[0] for own, shared in self]

    def _ends(self, lengths: list[int]) -> torch.Tensor:
        ends = torch.tensor([0, *lengths]).cumsum(0)
        return ends.to(self.device, torch.int32, non_blocking=True)


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


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    packing: Segments | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Let each token of a packed row see its own row's tokens up to itself, and nothing else.

    Queries are (1, heads, T, D), keys and values (1, key heads, T, D), and what comes out (1, T, heads, D); the mask
    that transformers makes is not used. Without `scaling` products are scaled by 1 / sqrt(D).

    Raises:
        ValueError: The model was called without `packing`.
    """
    if packing is None:
        raise ValueError(f"The attention {ATTENTION!r} needs the segments of a packed row (`packing`), got none.")
    options = kernel_options(query.device, query.dtype, query.shape[-1], scaling)
    if options is None:
        return _segment_by_segment(query, key, value, packing, scaling), None
    return _varlen(query, key, value, packing, options), None


def kernel_options(
    device: torch.device, dtype: torch.dtype, head_size: int, scaling: float | None = None
) -> dict[str, Any] | None:
    """Return how torch's varlen attention is asked to attend in one call for all segments; see `varlen_options`.

    Returns:
        Keyword arguments, or None where there is no kernel for it: each segment is a call of its own then.
    """
    # What FlashAttention takes: half precision, heads of a multiple of 8 up to 256, Ampere or newer.
    if (
        varlen_attn is None
        or device.type != "cuda"
        or dtype not in (torch.bfloat16, torch.float16)
        or head_size % 8 != 0
        or head_size > 256
        or torch.cuda.get_device_capability(device) < (8, 0)
    ):
        return None
    return varlen_options(varlen_attn, head_size, scaling)


@cache
def varlen_options(kernel: Callable[..., Any], head_size: int, scaling: float | None) -> dict[str, Any] | None:
    """Return how a torch version's varlen attention is asked for a causal edge, the scaling and grouped keys.

    torch 2.10 takes `is_causal` and scales by 1 / sqrt(D) always; 2.11 takes `window_size` and `scale`; from 2.12 on
    grouped keys must be asked for by `enable_gqa`, while before the kernel takes them unasked.

    Returns:
        Keyword arguments, or None for a version that cannot do it.
    """
    known = inspect.signature(kernel).parameters
    options: dict[str, Any] = {}
    if "window_size" in known:
        options["window_size"] = (-1, 0)
    elif "is_causal" in known:
        options["is_causal"] = True
    else:
        return None
    if "scale" in known:
        options["scale"] = scaling
    elif scaling is not None and not isclose(scaling, 1 / sqrt(head_size)):
        return None
    if "enable_gqa" in known:
        options["enable_gqa"] = True
    return options


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Segments, options: dict[str, Any]
) -> torch.Tensor:
    """Attend in one flash-attention call; a segment's causal edge is at the end of its keys."""
    assert varlen_attn is not None
    most_queries, most_keys = packing.longest
    # The kernel knows one stretch of keys a segment, not two: shared ones are copied in front of each one's own.
    out = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        key[0].transpose(0, 1)[packing.key_index],
        value[0].transpose(0, 1)[packing.key_index],
        packing.query_ends,
        packing.key_ends,
        most_queries,
        most_keys,
        **options,
    )
    assert isinstance(out, torch.Tensor)
    return out[None]


def _segment_by_segment(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Segments, scaling: float | None
) -> torch.Tensor:
    """Attend in one call for each segment: without a varlen kernel, one call over all would build a T x T mask."""
    out = torch.empty_like(query).transpose(1, 2)  # (1, T, heads, D)
    for ((begin, end), (first, stop)), mask in zip(packing, packing.masks(query.dtype), strict=True):
        own_keys, own_values = key[:, :, begin:end], value[:, :, begin:end]
        if mask is None:
            part = F.scaled_dot_product_attention(
                query[:, :, begin:end], own_keys, own_values, is_causal=True, scale=scaling, enable_gqa=True
            )
        else:
            part = F.scaled_dot_product_attention(
                query[:, :, begin:end],
                torch.cat([key[:, :, first:stop], own_keys], dim=2),
                torch.cat([value[:, :, first:stop], own_values], dim=2),
                attn_mask=mask,
                scale=scaling,
                enable_gqa=True,
            )
        out[:, begin:end] = part.transpose(1, 2)
    return out


# By name, so that `set_attn_implementation` finds it: no model's code is changed.
AttentionInterface.register(ATTENTION, packed_attention)
