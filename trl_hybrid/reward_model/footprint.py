"""How much memory a reward model takes in each placement, from its configuration alone.

Sizes are bytes. What lasts and what passes are told apart: training, generating and scoring take turns, so that of
what each of them needs for its own work only the largest counts. The CUDA context and the allocator's slack are left
out.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from trl_hybrid.errors import InputError
from trl_hybrid.packing.attention import can_pack
from trl_hybrid.reward_model.host_embedding import PIECE_ROWS, PIECES
from trl_hybrid.reward_model.loading import whole_weights


Placement = Literal["resident", "streamed", "zero3", "cpu"]

PLACEMENTS: tuple[Placement, ...] = get_args(Placement)

LAYER_SLOTS = 3
"""Layers on the GPU at once when streamed: one that computes, two that are on their way."""

BATCHES_PER_PASS = 8
"""Forwards whose hidden states wait on the GPU between two layers, when streamed."""

GATHERED_LAYERS = 2
"""Layers that ZeRO-3 holds whole on the GPU: one that computes and one that is prefetched."""


@dataclass(frozen=True)
class Need:
    """Bytes of one kind of memory.

    Args:
        lasting: Held all the time: weights, optimizer.
        passing: Held while working, and free for others between: activations, caches.

    Example:
        >>> Need(lasting=6, passing=3).beside(Need(lasting=1, passing=2))
        Need(lasting=7, passing=3)
    """

    lasting: int
    passing: int = 0

    @property
    def total(self) -> int:
        """The peak."""
        return self.lasting + self.passing

    def beside(self, other: "Need") -> "Need":
        """Return the need of both, which work in turn."""
        return Need(self.lasting + other.lasting, max(self.passing, other.passing))


def default_tokens(placement: str, device: torch.device) -> int:
    """Return the computed tokens of one forward where the user names none.

    On a CPU more leave its caches and are slower; streamed rows wait on the GPU between two layers.
    """
    if device.type == "cpu":
        return 1024
    return 8192 if placement == "streamed" else 16384


@dataclass(frozen=True)
class Footprint:
    """What a reward model's memory is made of.

    Args:
        bytes_per_element: Of the body's weights and activations on a GPU.
        cpu_bytes_per_element: The same in the placement "cpu".
        num_layers: Layers of the body.
        layer_bytes: Weights of one layer, the largest where they differ.
        embedding_bytes: Weights of the token embedding.
        other_bytes: All other weights: the last norm and the score head, which is fp32.
        tensor_elements: Elements of each weight, head included.
        hidden_bytes_per_token: One hidden state (H,) and its rotary sine and cosine (head size each).
        workspace_bytes_per_token: Activations of one layer's forward; see `forward_bytes_per_token`.
        streamable: Whether the architecture can be streamed.
    """

    bytes_per_element: int
    cpu_bytes_per_element: int
    num_layers: int
    layer_bytes: int
    embedding_bytes: int
    other_bytes: int
    tensor_elements: tuple[int, ...]
    hidden_bytes_per_token: int
    workspace_bytes_per_token: int
    streamable: bool = True

    @property
    def weight_bytes(self) -> int:
        """All weights, in the type that they have on a GPU."""
        return self.num_layers * self.layer_bytes + self.embedding_bytes + self.other_bytes

    def on_gpu(self, placement: Placement, tokens: int | None = None) -> Need:
        """Return what one process's GPU holds, and what it needs beside while it scores.

        Args:
            placement: "resident": all weights last. "streamed": three layers last, and the hidden states of eight
                forwards wait between two layers. "zero3": two gathered layers and the gathered embedding pass. "cpu":
                nothing.
            tokens: Tokens of one forward, whose workspace all but "cpu" need; None for the placement's default.

        Returns:
            Bytes.
        """
        if tokens is None:
            tokens = default_tokens(placement, torch.device("cuda"))
        workspace = tokens * self.workspace_bytes_per_token
        if placement == "resident":
            return Need(self.weight_bytes, workspace)
        if placement == "streamed":
            waiting = BATCHES_PER_PASS * tokens * self.hidden_bytes_per_token
            return Need(LAYER_SLOTS * self.layer_bytes + self.other_bytes, waiting + workspace)
        if placement == "zero3":
            gathered = GATHERED_LAYERS * self.layer_bytes + self.embedding_bytes
            return Need(self.other_bytes, gathered + workspace)
        return Need(0)

    def host_bytes(self, placement: Placement, processes: int = 1) -> int:
        """Return what one process holds in the machine's memory, pinned unless the placement is "cpu".

        Args:
            placement: "streamed": all weights, each layer's in one pinned piece, the embedding not pinned, and the
                pinned pieces in which its rows are gathered. "zero3": this process's share of each weight, every one
                pinned on its own, as DeepSpeed does. "cpu": all weights. "resident": nothing.
            processes: Processes that share the weights under "zero3".

        Returns:
            Bytes.
        """
        if placement == "streamed":
            pinned = self.num_layers * pinned_bytes(self.layer_bytes)
            gathered = pinned_bytes(PIECES * PIECE_ROWS * self.hidden_bytes_per_token)
            return pinned + gathered + self.embedding_bytes + self.other_bytes
        if placement == "zero3":
            shares = [-(-elements // processes) * self.bytes_per_element for elements in self.tensor_elements]
            return sum(map(pinned_bytes, shares))
        if placement == "cpu":
            return self.weight_bytes * self.cpu_bytes_per_element // self.bytes_per_element
        return 0


def pinned_bytes(size: int) -> int:
    """Return what a piece of pinned memory takes: torch rounds it up to a power of two (`CachingHostAllocator`).

    Example:
        >>> pinned_bytes(466_115_584) == 2**29
        True
    """
    return 1 << (size - 1).bit_length() if size > 0 else 0


def measure_footprint(
    config: PreTrainedConfig, dtype: torch.dtype | None = None, trust_remote_code: bool = False
) -> Footprint:
    """Count a reward model's weights on the meta device, where they take no memory.

    Args:
        config: The sequence classifier's configuration.
        dtype: Of the body. Default: bf16 on a GPU and fp32 on a CPU, as when it is loaded.
        trust_remote_code: Whether the repository's own Python code may run.

    Raises:
        InputError: The body holds no list of layers.
    """
    size = (dtype or torch.bfloat16).itemsize
    width = layer_widths(config)
    with whole_weights(), torch.device("meta"):
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(
            copy.deepcopy(config), trust_remote_code=trust_remote_code
        )
    body: Any = model.base_model
    layers = find_layers(body)
    elements = [_count(layer) for layer in layers]
    embedding = _count(body.get_input_embeddings())
    rest = _count(body) - sum(elements) - embedding
    head = _count(model) - _count(body)
    return Footprint(
        bytes_per_element=size,
        cpu_bytes_per_element=(dtype or torch.float32).itemsize,
        num_layers=len(layers),
        layer_bytes=max(elements) * size,
        embedding_bytes=embedding * size,
        other_bytes=rest * size + head * torch.float32.itemsize,
        tensor_elements=tuple(parameter.numel() for parameter in model.parameters()),
        hidden_bytes_per_token=size * (width["hidden"] + 2 * width["head"]),
        workspace_bytes_per_token=forward_bytes_per_token(config, size),
        streamable=can_pack(config),
    )


def forward_bytes_per_token(config: PreTrainedConfig, bytes_per_element: int) -> int:
    """Return the activations of one layer's forward without gradients, for each token.

    (2 H + Q + 2 KV + 3 I) elements: the hidden states in and out (H each), the queries (Q = heads x head size), keys
    and values (KV = key-value heads x head size each), and the MLP's gate, up and product (I each). They are not all
    alive at once; what is left over covers the norm's fp32 copies and repeated keys and values.
    """
    width = layer_widths(config)
    elements = 2 * width["hidden"] + width["query"] + 2 * width["key"] + 3 * width["intermediate"]
    return elements * bytes_per_element


def layer_widths(config: PreTrainedConfig) -> dict[str, int]:
    """Return the elements a token of a decoder layer's tensors: hidden, one head, query, key, intermediate."""
    text: Any = config.get_text_config()
    heads = text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return {
        "hidden": text.hidden_size,
        "head": head_size,
        "query": heads * head_size,
        "key": (getattr(text, "num_key_value_heads", None) or heads) * head_size,
        "intermediate": getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
    }


def find_layers(body: nn.Module) -> nn.ModuleList:
    """Return the list of a transformer's layers: the one that holds most of the weights."""
    lists = [module for module in body.modules() if isinstance(module, nn.ModuleList) and len(module) > 0]
    if not lists:
        raise InputError(f"A transformer's body must hold a list of layers, but {type(body).__name__} holds none.")
    return max(lists, key=_count)


def gigabytes(size: int) -> str:
    """Show bytes as GB of 10^9 bytes.

    Example:
        >>> gigabytes(14_141_000_000)
        '14.1 GB'
    """
    return f"{size / 10**9:.1f} GB"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
