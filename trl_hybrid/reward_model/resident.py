"""The reward model on one device, whole: padded batches under a token budget, the head in fp32."""

import logging
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from trl_hybrid.reward_model.plan import Row, cut_batches


logger = logging.getLogger(__name__)

PADDING_BUDGET = {"cpu": 128, "cuda": 2048}
"""Padding tokens that cost about as much as one more forward, by kind of device."""


class ResidentModel:
    """Scores rows of token ids with weights that stay on one device.

    A score is the head's product with the hidden state of the row's last token, found by the row's length: the pad
    token may be the end-of-turn token. The head computes in fp32, because in bf16 scores above 8 are 0.06 apart.

    Args:
        body: Transformer without head, on its device.
        head: Linear map from a hidden state (H,) to one score. It is turned to fp32 in place.
        token_budget: Bound on a forward's tokens, padding included. It shrinks when the device runs out of memory.
    """

    def __init__(self, body: nn.Module, head: nn.Linear, token_budget: int) -> None:
        if token_budget < 1:
            raise ValueError(f"`token_budget` must be at least 1 token, but got {token_budget}.")
        self.body = body
        self.head = head.float()
        self.token_budget = token_budget

    @property
    def device(self) -> torch.device:
        """Where the rows are computed."""
        return self.head.weight.device

    def score(self, rows: Sequence[Row]) -> list[float]:
        """Score rows of token ids.

        Args:
            rows: Rows of at least one token.

        Returns:
            One score per row, in the same order, NaN and infinities as they come.
        """
        scores = [float("nan")] * len(rows)
        waiting = list(range(len(rows)))
        while waiting:
            batch = [waiting[index] for index in self._next_batch([len(rows[row]) for row in waiting])]
            values = self._try_forward([rows[row] for row in batch])
            if values is None:
                continue  # out of memory: the budget is smaller now
            for row, value in zip(batch, values, strict=True):
                scores[row] = value
            done = set(batch)
            waiting = [row for row in waiting if row not in done]
        return scores

    def _next_batch(self, lengths: Sequence[int]) -> list[int]:
        padding_budget = PADDING_BUDGET.get(self.device.type, PADDING_BUDGET["cuda"])
        return cut_batches(lengths, self.token_budget, padding_budget)[0]

    def _try_forward(self, rows: Sequence[Row]) -> list[float] | None:
        """Score one batch; where memory runs out, halve the budget and return None."""
        try:
            return self._forward(rows)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise torch.OutOfMemoryError(
                    f"A row must fit on {self.device} beside the policy, but one of {len(rows[0])} tokens does not. "
                    "Lower the reward model's `max_length`, or place the reward model elsewhere."
                ) from error
            tokens = len(rows) * max(map(len, rows))
            self.token_budget = max(1, min(self.token_budget, tokens) // 2)
            logger.warning(
                "The reward model ran out of memory on %s with %d tokens in one forward: the token budget is %d now.",
                self.device,
                tokens,
                self.token_budget,
            )
        # Only here have the failed forward's tensors been let go.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Row]) -> list[float]:
        """Score one batch in one forward, padded on the right."""
        lengths = torch.tensor([len(row) for row in rows], device=self.device)  # (B,)
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(self.device)  # (B, T)
        mask = torch.arange(ids.shape[1], device=self.device) < lengths[:, None]  # (B, T)
        with torch.autocast(self.device.type, enabled=False):  # the caller's mixed precision is the policy's
            hidden = self.body(
                input_ids=ids, attention_mask=mask.long(), use_cache=False
            ).last_hidden_state  # (B, T, H)
            last = hidden[torch.arange(len(rows), device=self.device), lengths - 1]  # (B, H)
            return F.linear(last.float(), self.head.weight, self.head.bias)[:, 0].tolist()
