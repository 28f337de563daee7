"""The attention that keeps the rows of a packed row apart.

It is registered with transformers' attention interface, under `ATTENTION` for models that see nothing else, and no
model is patched. It finds the segments in the keyword argument `packing`, which models hand through to it.
"""

import inspect
from collections.abc import Callable
from functools import cache, wraps
from math import isclose, sqrt
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedConfig

from trl_hybrid.packing.segments import Segments


try:  # torch 2.10 and newer
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None

ATTENTION = "trl_hybrid_packed"

PACKABLE = ("qwen2", "qwen3", "llama")
"""Model types whose layers see other rows through attention alone, so that attention can keep rows apart."""

TAKES_GROUPED_KEYS = ("cpu",)
"""Kinds of devices on which torch attends to grouped keys under a mask, or in fp32, without their whole matrix.

On CUDA the flash kernel takes no mask and no fp32, and the memory-efficient one no grouped keys (torch's
`sdp_utils.cpp`).
"""

LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Position encodings that change with the longest row of a forward."""


def can_pack(config: PreTrainedConfig) -> bool:
    """Return whether rows of this architecture can be packed and still be computed as if alone."""
    rope = getattr(config, "rope_parameters", None) or {}
    layer_types = getattr(config, "layer_types", None) or []
    return (
        config.model_type in PACKABLE
        and rope.get("rope_type") not in LENGTH_DEPENDENT_ROPE
        and all(kind == "full_attention" for kind in layer_types)
    )


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
        return _blocks(query, key, value, packing, scaling), None
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
        key[0].transpose(0, 1).index_select(0, packing.key_index),
        value[0].transpose(0, 1).index_select(0, packing.key_index),
        packing.query_ends,
        packing.key_ends,
        most_queries,
        most_keys,
        **options,
    )
    assert isinstance(out, torch.Tensor)
    return out[None]


def _blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Segments, scaling: float | None
) -> torch.Tensor:
    """Attend in one call for each block: without a varlen kernel, one call over all would build a T x T mask."""
    queries = query[0].transpose(0, 1).index_select(0, packing.block_queries)  # (sum of n * q, heads, D)
    keys, values = (tensor[0].transpose(0, 1).index_select(0, packing.block_keys) for tensor in (key, value))
    grouped = query.device.type in TAKES_GROUPED_KEYS
    if not grouped:
        repeats = query.shape[1] // key.shape[1]
        keys, values = keys.repeat_interleave(repeats, 1), values.repeat_interleave(repeats, 1)
    shapes = [(len(block.segments), block.queries, block.keys) for block in packing.blocks]
    parts = zip(
        queries.split([n * q for n, q, _ in shapes]),
        keys.split([n * k for n, _, k in shapes]),
        values.split([n * k for n, _, k in shapes]),
        packing.masks(query.dtype),
        shapes,
        strict=True,
    )
    out = [
        F.scaled_dot_product_attention(
            q.unflatten(0, (n, -1)).transpose(1, 2),
            k.unflatten(0, (n, -1)).transpose(1, 2),
            v.unflatten(0, (n, -1)).transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=grouped,
        )
        .transpose(1, 2)
        .flatten(0, 1)
        for q, k, v, mask, (n, _, _) in parts
    ]
    return torch.cat(out).index_select(0, packing.block_places)[None]


def let_segments_through(name: str) -> bool:
    """Make an attention of transformers attend as `packed_attention` where it is given segments, as before elsewhere.

    A model that is trained attends to packed rows and, between them, generates. To switch its attention for each of
    the two would not do: gradient checkpointing computes a forward once more while its gradients are.

    Args:
        name: Under which it is registered with transformers' attention interface.

    Returns:
        Whether there is one of that name. `eager` is each model's own, and none.
    """
    own = AttentionInterface().get(name)
    if own is None:
        return False
    if not hasattr(own, "takes_segments"):

        @wraps(own)
        def attention(*tensors: Any, packing: Segments | None = None, **more: Any) -> tuple[torch.Tensor, Any]:
            return own(*tensors, **more) if packing is None else packed_attention(*tensors, packing=packing, **more)

        attention.__dict__["takes_segments"] = True
        AttentionInterface.register(name, attention)
    return True


# By name, so that `set_attn_implementation` finds it: no model's code is changed.
AttentionInterface.register(ATTENTION, packed_attention)
