"""One forward over a batch of rows: packed without padding where the architecture allows it, padded elsewhere."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isclose, isfinite
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from trl_hybrid.packing.attention import ATTENTION, can_pack
from trl_hybrid.reward_model.packed_rows import pack_rows
from trl_hybrid.reward_model.plan import Batch, Family, Row, cut_batches, pack, rows_of, share_starts
from trl_hybrid.reward_model.torch_settings import scoring_settings


logger = logging.getLogger(__name__)

PADDING_BUDGET = {"cpu": 128, "cuda": 2048}
"""Padding tokens that cost about as much as one more forward, by kind of device."""


class Forward(Protocol):
    """How rows go through the body."""

    def plan(self, rows: Sequence[Row], token_budget: int) -> list[Batch]:
        """Cut rows into batches of at most `token_budget` computed tokens; a longer row goes alone."""
        ...

    def tokens(self, rows: Sequence[Row], batch: Batch) -> int:
        """Count the tokens that the batch's forward computes, padding included."""
        ...

    def run(self, rows: Sequence[Row], batch: Batch) -> list[float]:
        """Score a batch, in the order of `rows_of(batch)`."""
        ...


class PaddedForward:
    """Rows of similar length, padded on the right to the longest: right for every architecture with a mask.

    A score is the head's product with the hidden state of the row's last token, found by the row's length: the pad
    token may be the end-of-turn token.

    Args:
        body: Transformer without head.
        head: Linear map from a hidden state (H,) to one score, in fp32, on the device where rows are computed.
    """

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        self.body, self.head = body, head

    def plan(self, rows: Sequence[Row], token_budget: int) -> list[Batch]:
        """Cut rows into batches of similar length; see `cut_batches`."""
        padding_budget = PADDING_BUDGET.get(self.head.weight.device.type, PADDING_BUDGET["cuda"])
        batches = cut_batches([len(row) for row in rows], token_budget, padding_budget)
        return [[Family(0, (row,)) for row in batch] for batch in batches]

    def tokens(self, rows: Sequence[Row], batch: Batch) -> int:
        """Count the tokens of the padded batch."""
        chosen = list(rows_of(batch))
        return len(chosen) * max(len(rows[row]) for row in chosen)

    @torch.inference_mode()
    def run(self, rows: Sequence[Row], batch: Batch) -> list[float]:
        """Score a batch, in the order of `rows_of(batch)`."""
        device = self.head.weight.device
        chosen = [torch.tensor(rows[row]) for row in rows_of(batch)]
        lengths = torch.tensor([len(row) for row in chosen], device=device)  # (B,)
        ids = pad_sequence(chosen, batch_first=True).to(device)  # (B, T)
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]  # (B, T)
        with scoring_settings(device):
            hidden = self.body(
                input_ids=ids, attention_mask=mask.long(), use_cache=False
            ).last_hidden_state  # (B, T, H)
            last = hidden[torch.arange(len(chosen), device=device), lengths - 1]  # (B, H)
            return apply_head(self.head, last)


class PackedForward:
    """Rows end to end in one row without padding, a shared start once, kept apart by the attention function.

    Args:
        body: Transformer of a `PACKABLE` type, without head. Its attention is switched to the packed one.
        head: Linear map from a hidden state (H,) to one score, in fp32, on the device where rows are computed.
    """

    def __init__(self, body: PreTrainedModel, head: nn.Linear) -> None:
        self.body, self.head = body, head
        layers: Any = body.layers
        self.last_mlp: nn.Module = layers[-1].mlp
        body.set_attn_implementation(ATTENTION)

    def plan(self, rows: Sequence[Row], token_budget: int) -> list[Batch]:
        """Share starts, then fill forwards; see `share_starts` and `pack`."""
        return pack(share_starts(rows, token_budget), [len(row) for row in rows], token_budget)

    def tokens(self, rows: Sequence[Row], batch: Batch) -> int:
        """Count the tokens of the packed batch, shared starts once."""
        return sum(sum(len(rows[row]) - family.shared for row in family.rows) + family.shared for family in batch)

    @torch.inference_mode()
    def run(self, rows: Sequence[Row], batch: Batch) -> list[float]:
        """Score a batch, in the order of `rows_of(batch)`."""
        device = self.head.weight.device
        packed = pack_rows(rows, batch).to(device)
        with scoring_settings(device), at_tokens(self.last_mlp, packed.last, len(packed.ids)):
            hidden = self.body(
                input_ids=packed.ids[None],
                position_ids=packed.positions[None],
                use_cache=False,
                packing=packed.segments,
            ).last_hidden_state  # (1, T, H)
            return apply_head(self.head, hidden[0, packed.last])


@contextmanager
def at_tokens(mlp: nn.Module, chosen: torch.Tensor, tokens: int) -> Iterator[None]:
    """Compute an MLP at some tokens of a packed row only, and give 0 for the others, as long as the context lasts.

    Of the last layer only the rows' last tokens are read, and an MLP is most of a layer's work.

    Args:
        mlp: Maps hidden states (1, T, H) to (1, T, H), each token by itself.
        chosen: Indices of the tokens, shape (B,).
        tokens: T.
    """

    def choose(_: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (inputs[0][:, chosen],)

    def spread(_: nn.Module, __: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        everywhere = output.new_zeros(1, tokens, output.shape[-1])
        everywhere[:, chosen] = output
        return everywhere

    with mlp.register_forward_pre_hook(choose), mlp.register_forward_hook(spread):
        yield


def choose_forward(body: PreTrainedModel, head: nn.Linear, samples: Sequence[Row]) -> Forward:
    """Return the packed forward where it gives the scores of plain single rows, the padded one elsewhere.

    A packable architecture that fails the comparison, on a few short rows that start alike, is padded, with a warning.
    """
    if not can_pack(body.config):
        return PaddedForward(body, head)
    expected = plain_scores(body, head, samples)
    own_attention = str(body.config._attn_implementation)
    packed = PackedForward(body, head)
    lengths = [len(row) for row in samples]
    (batch,) = pack(share_starts(samples, sum(lengths), least=1), lengths, sum(lengths))
    order = list(rows_of(batch))
    tolerance = score_tolerance(next(body.parameters()).dtype)
    fault = fault_of(lambda: packed.run(samples, batch), [expected[row] for row in order], tolerance)
    if fault is None:
        return packed
    logger.warning(
        "Packed rows must score as rows alone do, but with %s on %s %s. Its rows are padded instead, which is slower. "
        "Check the versions of torch and transformers.",
        type(body).__name__,
        head.weight.device,
        fault,
    )
    body.set_attn_implementation(own_attention)
    return PaddedForward(body, head)


def plain_scores(body: PreTrainedModel, head: nn.Linear, rows: Sequence[Row]) -> list[float]:
    """Score rows one by one, without packing or padding."""
    forward = PaddedForward(body, head)
    return [score for index in range(len(rows)) for score in forward.run(rows, [Family(0, (index,))])]


def fault_of(score: Callable[[], list[float]], expected: Sequence[float], tolerance: float) -> str | None:
    """Say what is wrong with a way to score, None if nothing is."""
    try:
        scores = score()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError) as error:  # how a kernel refuses a device, a number type or a shape
        return f"the kernel fails ({str(error).splitlines()[0]})"
    pairs = [pair for pair in zip(scores, expected, strict=True) if isfinite(pair[1])]
    if agree([pair[0] for pair in pairs], [pair[1] for pair in pairs], tolerance):
        return None
    return f"scores are {[pair[0] for pair in pairs]} instead of {[pair[1] for pair in pairs]}"


def score_tolerance(dtype: torch.dtype) -> float:
    """Return how far two ways to compute one score may be apart, by the body's dtype; see `agree`."""
    return 1e-3 if dtype == torch.float32 else 0.1


def agree(scores: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
    """Return whether two ways to compute the same scores agree.

    Rounding moves a score by a share of the products that it is the sum of, not of the sum: one near 0 is moved as far
    as the others. So the tolerance is a share of the largest score, or of 1 where all are smaller.

    Example:
        >>> agree([12.0, 0.1], [12.5, 0.4], tolerance=0.1), agree([1.0, 0.1], [1.0, 0.4], tolerance=0.1)
        (True, False)
    """
    scale = max([1.0, *map(abs, expected)])
    return all(isclose(*pair, rel_tol=0.0, abs_tol=tolerance * scale) for pair in zip(scores, expected, strict=True))


def apply_head(head: nn.Linear, hidden: torch.Tensor) -> list[float]:
    """Turn last hidden states (B, H) into scores, in fp32: in bf16 scores above 8 are 0.06 apart."""
    return F.linear(hidden.float(), head.weight, head.bias)[:, 0].tolist()
