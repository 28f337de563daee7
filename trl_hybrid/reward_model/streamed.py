"""The reward model in host memory, brought to the device one layer at a time for all rows at once.

A pass is layer-major: a layer's weights are copied once and all packed rows go through it, while the next layers'
copies run on a stream of their own. So the weights cross the bus once a call, however many rows there are, and from
roughly ten thousand tokens a call the copies hide under the computation.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedConfig

from trl_hybrid.errors import InputError
from trl_hybrid.packing.attention import can_pack
from trl_hybrid.reward_model.footprint import BATCHES_PER_PASS
from trl_hybrid.reward_model.forwards import (
    PackedForward,
    apply_head,
    at_tokens,
    fault_of,
    plain_scores,
    score_tolerance,
)
from trl_hybrid.reward_model.host_embedding import HostEmbedding
from trl_hybrid.reward_model.layer_stream import LayerStream
from trl_hybrid.reward_model.loading import Source, load_model, split_model, whole_weights
from trl_hybrid.reward_model.out_of_memory import score_what_fits, smaller_budget
from trl_hybrid.reward_model.packed_rows import PackedRows, pack_rows
from trl_hybrid.reward_model.plan import Batch, Row, rows_of
from trl_hybrid.reward_model.torch_settings import own_share_of_cores, scoring_settings


logger = logging.getLogger(__name__)


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
        head: Linear map from a hidden state (H,) to one score, in fp32.
        device: Where rows are computed. The embedding is looked up on the CPU.
        token_budget: Bound on a forward's computed tokens; the hidden states of `BATCHES_PER_PASS` such forwards are
            on the device together. Both shrink when the device runs out of memory.
    """

    def __init__(self, body: Any, head: nn.Linear, device: torch.device, token_budget: int) -> None:
        self.body = body
        self.head = head.to(device)
        self.device = device
        self.token_budget = token_budget
        self.batches_per_pass = BATCHES_PER_PASS
        self.embedding = HostEmbedding(body.embed_tokens.weight, device)
        self.norm = body.norm.to(device)
        self.rotary = body.rotary_emb.to(device)
        self.layers = list(body.layers)
        self.forward = PackedForward(body, self.head)
        self.stream = LayerStream(self.layers, device)

    def score(self, rows: Sequence[Row]) -> list[float]:
        """Score rows of token ids; see [`ScoringBackend`]."""
        return score_what_fits(rows, self._passes, self._try_pass)

    def _passes(self, rows: Sequence[Row]) -> list[list[Batch]]:
        """Cut rows into batches, and the batches into those that go through the layers together."""
        batches = self.forward.plan(rows, self.token_budget)
        starts = range(0, len(batches), self.batches_per_pass)
        return [batches[first : first + self.batches_per_pass] for first in starts]

    def _try_pass(self, rows: Sequence[Row], batches: list[Batch]) -> list[float] | None:
        """Score the batches of one pass; where memory runs out, take less at once from now on and return None."""
        try:
            return self._pass([pack_rows(rows, batch) for batch in batches])
        except torch.OutOfMemoryError as error:
            self._shrink(rows, batches, error)
        # Only here have the failed pass's tensors been let go.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _shrink(self, rows: Sequence[Row], batches: Sequence[Batch], error: torch.OutOfMemoryError) -> None:
        """Take less at once: smaller batches, and where the largest is a single row, fewer in one pass.

        Half the tokens in each batch or half the batches make the weights cross the bus equally often. But smaller
        batches need less of everything: a token in the layer that computes takes many times what it takes waiting.
        """
        tokens, largest = max((self.forward.tokens(rows, batch), len(list(rows_of(batch)))) for batch in batches)
        if largest > 1 or len(batches) == 1:
            self.token_budget = smaller_budget(self.token_budget, tokens, largest, self.device, error)
            return
        self.batches_per_pass = len(batches) // 2
        logger.warning(
            "The reward model ran out of memory on %s with %d batches in one pass, the largest a row of %d tokens: "
            "%d go through the layers together now.",
            self.device,
            len(batches),
            tokens,
            self.batches_per_pass,
        )

    @torch.inference_mode()
    def _pass(self, batches: Sequence[PackedRows]) -> list[float]:
        """Take all batches through one layer after the other."""
        with scoring_settings(self.device):
            if self.stream.used % len(self.layers):  # the last pass was broken off
                self.stream.restart()
            passengers = [self._embed(packed) for packed in batches]
            # Layers outside, batches inside: each layer crosses the bus once, whatever the number of batches.
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
        # A GB of a 7B model, of which a batch needs a few rows: looked up in host memory.
        hidden = self.embedding.look_up(packed.ids)[None]  # (1, T, H)
        packed = packed.to(self.device)
        return _Passenger(packed, hidden, self.rotary(hidden, packed.positions[None]))

    @staticmethod
    def _through(layer: nn.Module, weights: dict[str, torch.Tensor], passenger: _Passenger) -> torch.Tensor:
        # With the weights on the device in place of the layer's own, which stay in host memory.
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

    Raises:
        InputError: An architecture whose layers cannot be run one by one over packed rows, or one whose streamed
            scores are not the plain ones.
    """
    if not can_pack(config):
        raise InputError(
            "A streamed reward model must be of the Qwen2, Qwen3 or Llama type with full attention in all layers and "
            f"positions that do not depend on the longest row, but {source.name!r}, of type {config.model_type!r}, is "
            "not. Place it `resident`, `zero3` or `cpu`."
        )
    with own_share_of_cores():
        with whole_weights():
            body, head = split_model(load_model(source, dtype, torch.device("cpu")))
        head = head.float()
        # On the CPU, and now: streaming moves the weights into slabs and switches the attention.
        plain = plain_scores(body, head, samples[:2])
        model = StreamedModel(body, head, device, token_budget)
    fault = fault_of(lambda: model.score(samples[:2]), plain, score_tolerance(dtype))
    if fault is not None:
        raise InputError(
            f"Streamed rows must score as plain ones do, but with {source.name!r} on {device} {fault}. Place it "
            "`resident`, `zero3` or `cpu`, and check the versions of torch and transformers."
        )
    return model
