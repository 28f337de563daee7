"""The reward model in host memory, brought to the device one layer at a time for all rows at once.

A pass is layer-major: a layer's weights are copied once and all packed rows go through it, while the next layers'
copies run on a stream of their own. So the weights cross the bus once a call, however many rows there are, and from
roughly ten thousand tokens a call the copies hide under the computation.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers import PreTrainedConfig

from trl_hybrid.reward_model.footprint import BATCHES_PER_PASS, LAYER_SLOTS
from trl_hybrid.reward_model.forwards import (
    PackedForward,
    apply_head,
    at_tokens,
    can_pack,
    fault_of,
    plain_scores,
    score_tolerance,
)
from trl_hybrid.reward_model.loading import Source, load_model, split_model, whole_weights
from trl_hybrid.reward_model.packing import PackedRows, pack_rows
from trl_hybrid.reward_model.plan import Batch, Row, rows_of
from trl_hybrid.reward_model.resident import smaller_budget


ALIGNMENT = 64
"""Elements to which each tensor in a slab is aligned, for the matrix kernels' sake."""


class LayerStream:
    """Layers in pinned host memory, and room for a few of them on the device.

    The order in which layers are used is a ring, so that at the end of one pass the first layers are already on their
    way for the next.

    Args:
        layers: Layers of equal shape on the CPU. Their weights are moved into slabs, one for each layer.
        device: Where they are computed. On the CPU copies are plain and nothing is pinned.
        slots: Layers with room on the device.
    """

    def __init__(self, layers: Sequence[nn.Module], device: torch.device, slots: int = LAYER_SLOTS) -> None:
        self.device = device
        on_gpu = device.type == "cuda"
        self.slabs = [_into_slab(layer, pinned=on_gpu) for layer in layers]
        self.slots = [torch.empty_like(self.slabs[0], device=device) for _ in range(min(slots, len(layers)))]
        self.views = [dict(_views(layers[0], slot)) for slot in self.slots]
        self.copies = torch.cuda.Stream(device) if on_gpu else None
        if self.copies is not None:
            for slot in self.slots:  # let go while a copy into it is on its way, it must not be used for anything else
                slot.record_stream(self.copies)
        self.ready = [torch.cuda.Event() for _ in self.slots] if on_gpu else []
        self.free = [torch.cuda.Event() for _ in self.slots] if on_gpu else []
        self.restart()

    def restart(self) -> None:
        """Begin with the first layer again, as after a pass that was broken off."""
        if self.copies is not None:
            torch.cuda.synchronize(self.device)
        self.used = 0
        for ahead in range(len(self.slots)):
            self._fetch(ahead)

    @contextmanager
    def next_layer(self) -> Iterator[dict[str, torch.Tensor]]:
        """Give the next layer's weights by name, on the device, as long as the context lasts."""
        slot = self.used % len(self.slots)
        if self.copies is not None:
            torch.cuda.current_stream(self.device).wait_event(self.ready[slot])
        yield self.views[slot]
        if self.copies is not None:
            self.free[slot].record(torch.cuda.current_stream(self.device))
        self.used += 1
        self._fetch(self.used + len(self.slots) - 1)

    def _fetch(self, use: int) -> None:
        """Copy the layer of the given use into its slot, once the slot's last computation is over."""
        slot = use % len(self.slots)
        with torch.cuda.stream(self.copies):  # does nothing without a stream
            if self.copies is not None:
                self.copies.wait_event(self.free[slot])
            self.slots[slot].copy_(self.slabs[use % len(self.slabs)], non_blocking=True)
            if self.copies is not None:
                self.ready[slot].record(self.copies)


@dataclass
class _Passenger:
    """One batch on its way through the layers: its rows, its hidden states (1, T, H) and their position encoding."""

    packed: PackedRows
    hidden: torch.Tensor
    rotary: tuple[torch.Tensor, torch.Tensor]


class StreamedModel:
    """Scores rows of token ids with weights that pass through the device.

    Args:
        body: Transformer of a packable type on the CPU, without head.
        head: Linear map from a hidden state (H,) to one score.
        device: Where rows are computed. The embedding is looked up on the CPU.
        token_budget: Bound on a forward's computed tokens; the hidden states of `BATCHES_PER_PASS` such forwards are
            on the device together. It shrinks when the device runs out of memory.
    """

    def __init__(self, body: Any, head: nn.Linear, device: torch.device, token_budget: int) -> None:
        self.body = body
        self.head = head.float().to(device)
        self.device = device
        self.token_budget = token_budget
        self.norm = body.norm.to(device)
        self.rotary = body.rotary_emb.to(device)
        self.layers = list(body.layers)
        self.forward = PackedForward(body, self.head)
        self.stream = LayerStream(self.layers, device)

    def score(self, rows: Sequence[Row]) -> list[float]:
        """Score rows of token ids.

        Args:
            rows: Rows of at least one token.

        Returns:
            One score per row, in the same order, NaN and infinities as they come.
        """
        while True:
            batches = self.forward.plan(rows, self.token_budget)
            try:
                return self._score(rows, batches)
            except torch.OutOfMemoryError as error:
                tokens, largest = max(
                    (self.forward.tokens(rows, batch), len(list(rows_of(batch)))) for batch in batches
                )
                self.token_budget = smaller_budget(self.token_budget, tokens, largest, self.device, error)
            # Only here have the failed pass's tensors been let go.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _score(self, rows: Sequence[Row], batches: list[Batch]) -> list[float]:
        scores = [float("nan")] * len(rows)
        for first in range(0, len(batches), BATCHES_PER_PASS):
            together = batches[first : first + BATCHES_PER_PASS]
            values = self._pass([pack_rows(rows, batch) for batch in together])
            for row, value in zip((row for batch in together for row in rows_of(batch)), values, strict=True):
                scores[row] = value
        return scores

    @torch.inference_mode()
    def _pass(self, batches: Sequence[PackedRows]) -> list[float]:
        """Take all batches through one layer after the other."""
        with torch.autocast(self.device.type, enabled=False):  # the caller's mixed precision is the policy's
            if self.stream.used % len(self.layers):  # the last pass was broken off
                self.stream.restart()
            passengers = [self._embed(packed) for packed in batches]
            for layer in self.layers:
                with self.stream.next_layer() as weights:
                    for passenger in passengers:
                        with self._at_last_tokens(layer, passenger.packed):
                            passenger.hidden = self._through(layer, weights, passenger)
            last = torch.cat([passenger.hidden[0, passenger.packed.last] for passenger in passengers])
            return apply_head(self.head, self.norm(last))

    def _at_last_tokens(self, layer: Any, packed: PackedRows) -> AbstractContextManager[None]:
        return at_tokens(layer.mlp, packed.last, len(packed.ids)) if layer is self.layers[-1] else nullcontext()

    def _embed(self, packed: PackedRows) -> _Passenger:
        """Look the tokens up in host memory: of a table of a gigabyte few rows are needed."""
        hidden = F.embedding(packed.ids, self.body.embed_tokens.weight)[None].to(self.device)
        packed = packed.to(self.device)
        return _Passenger(packed, hidden, self.rotary(hidden, packed.positions[None]))

    @staticmethod
    def _through(layer: nn.Module, weights: dict[str, torch.Tensor], passenger: _Passenger) -> torch.Tensor:
        return functional_call(
            layer,
            weights,
            (passenger.hidden,),
            {
                "attention_mask": None,
                "position_ids": passenger.packed.positions[None],
                "position_embeddings": passenger.rotary,
                "packing": passenger.packed.segments,
            },
        )


def load_streamed(
    source: Source,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    token_budget: int,
    samples: Sequence[Row],
) -> StreamedModel:
    """Load a reward model into host memory, to be streamed.

    Args:
        source: Where the model comes from.
        config: Its configuration.
        dtype: Type of the body's weights.
        device: Where rows are computed.
        token_budget: Bound on a forward's computed tokens.
        samples: Short rows that start alike; two are scored plainly on the CPU first, to compare with.

    Raises:
        ValueError: An architecture whose layers cannot be run one by one over packed rows, or one whose streamed
            scores are not the plain ones.
    """
    if not can_pack(config):
        raise ValueError(
            "A streamed reward model must be of the Qwen2, Qwen3 or Llama type with full attention in all layers and "
            f"positions that do not depend on the longest row, but {source.name!r}, of type {config.model_type!r}, is "
            "not. Place it `resident`, `zero3` or `cpu`."
        )
    with whole_weights():
        body, head = split_model(load_model(source, dtype, torch.device("cpu")))
    plain = plain_scores(body, head.float(), samples[:2])
    model = StreamedModel(body, head, device, token_budget)
    fault = fault_of(lambda: model.score(samples[:2]), plain, score_tolerance(dtype))
    if fault is not None:
        raise ValueError(
            f"Streamed rows must score as plain ones do, but with {source.name!r} on {device} {fault}. Place it "
            "`resident`, `zero3` or `cpu`, and check the versions of torch and transformers."
        )
    return model


def _into_slab(layer: nn.Module, pinned: bool) -> torch.Tensor:
    """Move a layer's weights into one flat tensor, which frees the ones that they were in."""
    first = next(layer.parameters())
    slab = torch.empty(_slab_size(layer), dtype=first.dtype, pin_memory=pinned)
    for name, view in _views(layer, slab):
        parameter = layer.get_parameter(name)
        view.copy_(parameter)
        parameter.data = view
    return slab


def _slab_size(layer: nn.Module) -> int:
    return sum(-(-parameter.numel() // ALIGNMENT) * ALIGNMENT for parameter in layer.parameters())


def _views(layer: nn.Module, slab: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield where each of the layer's weights lies in a slab."""
    begin = 0
    for name, parameter in layer.named_parameters():
        yield name, slab[begin : begin + parameter.numel()].view(parameter.shape)
        begin += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
