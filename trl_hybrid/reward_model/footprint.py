"""How much memory a reward model takes in each placement, from its configuration alone; and which placement fits.

Sizes are bytes, and GB in messages means 10^9 bytes. Estimates leave out the CUDA context and the allocator's slack.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from trl_hybrid.reward_model.forwards import can_pack
from trl_hybrid.reward_model.loading import whole_weights


Placement = Literal["resident", "streamed", "zero3", "cpu"]

PLACEMENTS: tuple[Placement, ...] = get_args(Placement)

LAYER_SLOTS = 3
"""Layers on the GPU at once when streamed: one that computes, two that are on their way."""

BATCHES_PER_PASS = 8
"""Forwards whose hidden states wait on the GPU between two layers, when streamed."""

GATHERED_LAYERS = 2
"""Layers that ZeRO-3 holds whole on the GPU: one that computes and one that is prefetched."""

GB = 10**9


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
    hidden_bytes_per_token: int
    workspace_bytes_per_token: int
    streamable: bool = True

    @property
    def weight_bytes(self) -> int:
        """All weights, in the type that they have on a GPU."""
        return self.num_layers * self.layer_bytes + self.embedding_bytes + self.other_bytes

    def gpu_bytes(self, placement: Placement, tokens: int | None = None) -> int:
        """Return what one process's GPU needs while it scores.

        Args:
            placement: "resident": all weights. "streamed": three layers, and the hidden states of eight forwards
                between two layers. "zero3": two gathered layers and the gathered embedding. "cpu": nothing.
            tokens: Tokens of one forward, whose workspace all but "cpu" need; None for the placement's default.

        Returns:
            Bytes.
        """
        if tokens is None:
            tokens = default_tokens(placement, torch.device("cuda"))
        workspace = tokens * self.workspace_bytes_per_token
        if placement == "resident":
            return self.weight_bytes + workspace
        if placement == "streamed":
            waiting = BATCHES_PER_PASS * tokens * self.hidden_bytes_per_token
            return LAYER_SLOTS * self.layer_bytes + self.other_bytes + waiting + workspace
        if placement == "zero3":
            return GATHERED_LAYERS * self.layer_bytes + self.embedding_bytes + self.other_bytes + workspace
        return 0

    def host_bytes(self, placement: Placement, processes: int = 1) -> int:
        """Return what one process holds in the machine's memory, pinned unless the placement is "cpu".

        Args:
            placement: "streamed": all weights, each layer's rounded up to a power of two, as torch does with pinned
                memory. "cpu": all weights. "zero3": this process's share of them. "resident": nothing.
            processes: Processes that share the weights under "zero3".

        Returns:
            Bytes.
        """
        if placement == "streamed":
            pinned = 1 << (self.layer_bytes - 1).bit_length()
            return self.num_layers * pinned + self.embedding_bytes + self.other_bytes
        if placement == "zero3":
            return -(-self.weight_bytes // processes)
        if placement == "cpu":
            return self.weight_bytes * self.cpu_bytes_per_element // self.bytes_per_element
        return 0


def measure_footprint(
    config: PreTrainedConfig, dtype: torch.dtype | None = None, trust_remote_code: bool = False
) -> Footprint:
    """Count a reward model's weights on the meta device, where they take no memory.

    Args:
        config: The sequence classifier's configuration.
        dtype: Of the body. Default: bf16 on a GPU and fp32 on a CPU, as when it is loaded.
        trust_remote_code: Whether the repository's own Python code may run.

    Returns:
        The footprint.

    Raises:
        ValueError: The body holds no list of layers.
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
        hidden_bytes_per_token=size * (width["hidden"] + 2 * width["head"]),
        workspace_bytes_per_token=forward_bytes_per_token(config, size),
        streamable=can_pack(config),
    )


def forward_bytes_per_token(config: PreTrainedConfig, bytes_per_element: int) -> int:
    """Return the activations of one layer's forward without gradients, for each token.

    (2 H + Q + 2 KV + 3 I) elements: the hidden states in and out (H each), the queries (Q = heads x head size), keys
    and values (KV = key-value heads x head size each), and the MLP's gate, up and product (I each). They are not all
    alive at once; what is left over covers the norm's fp32 copies and repeated keys and values.

    Args:
        config: Of a decoder.
        bytes_per_element: Of its activations.

    Returns:
        Bytes a token.
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
        raise ValueError(f"A transformer's body must hold a list of layers, but {type(body).__name__} holds none.")
    return max(lists, key=_count)


def choose_placement(
    footprint: Footprint,
    free_bytes: int | None,
    tokens: int | None = None,
    reserved_bytes: int = 0,
    host_bytes: int | None = None,
) -> tuple[Placement, str]:
    """Choose the fastest placement that fits: resident, otherwise streamed, otherwise the CPU.

    Args:
        footprint: The reward model's.
        free_bytes: Free on the GPU, None where there is no GPU.
        tokens: Tokens of one forward, None for each placement's default.
        reserved_bytes: Of the free ones, what training will still take.
        host_bytes: Free in the machine's memory for this process, None for enough.

    Returns:
        The placement, and one line with the reason.

    Raises:
        ValueError: It would be streamed, but the machine's memory has no room for it either.

    Example:
        >>> small = Footprint(2, 4, 10, 10**9, 10**9, 0, 0, 0)
        >>> choose_placement(small, 5 * 10**9)[1]
        'streamed: needs 3.0 GB on the GPU, resident would need 11.0 GB, 5.0 GB are free'
    """
    if free_bytes is None:
        return "cpu", "cpu: there is no GPU"
    left = max(0, free_bytes - reserved_bytes)
    free = f"{gigabytes(left)} are free"
    if reserved_bytes:
        free += f" ({gigabytes(free_bytes)} less {gigabytes(reserved_bytes)} for training)"
    need = {placement: footprint.gpu_bytes(placement, tokens) for placement in PLACEMENTS}
    resident = f"resident would need {gigabytes(need['resident'])}"
    if need["resident"] <= left:
        return "resident", f"resident: needs {gigabytes(need['resident'])} on the GPU, {free}"
    if footprint.streamable and need["streamed"] <= left:
        pinned = footprint.host_bytes("streamed")
        if host_bytes is not None and pinned > host_bytes:
            raise ValueError(
                f"No placement of the reward model fits: {resident} on the GPU, {free}; streamed would need "
                f"{gigabytes(pinned)} of pinned memory for each process, {gigabytes(host_bytes)} are free for each. "
                "With several processes, `zero3` shares one copy between them; otherwise take a smaller reward model."
            )
        return "streamed", f"streamed: needs {gigabytes(need['streamed'])} on the GPU, {resident}, {free}"
    if footprint.streamable:
        return "cpu", f"cpu: streamed would need {gigabytes(need['streamed'])} on the GPU, {resident}, {free}"
    zero3 = f"zero3 would need {gigabytes(need['zero3'])}" + (": choose that" if need["zero3"] <= left else "")
    return "cpu", f"cpu: {resident} on the GPU, {free}; this architecture cannot be streamed, {zero3}"


def gigabytes(size: int) -> str:
    """Show bytes as GB of 10^9 bytes.

    Example:
        >>> gigabytes(14_141_000_000)
        '14.1 GB'
    """
    return f"{size / GB:.1f} GB"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
