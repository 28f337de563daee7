"""The reward model whole on one device."""

import logging
from collections.abc import Sequence

import torch

from trl_hybrid.reward_model.forwards import Forward
from trl_hybrid.reward_model.plan import Batch, Row, rows_of


logger = logging.getLogger(__name__)


class ResidentModel:
    """Scores rows of token ids with weights that stay on one device.

    Args:
        forward: How a batch goes through the model.
        device: Where the weights are.
        token_budget: Bound on a forward's computed tokens. It shrinks when the device runs out of memory.
    """

    def __init__(self, forward: Forward, device: torch.device, token_budget: int) -> None:
        self.forward = forward
        self.device = device
        self.token_budget = token_budget

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
            left = [rows[row] for row in waiting]
            done = set()
            for batch in self.forward.plan(left, self.token_budget):
                values = self._try_forward(left, batch)
                if values is None:
                    break  # out of memory: the rest is planned anew, with the smaller budget
                for index, value in zip(rows_of(batch), values, strict=True):
                    scores[waiting[index]] = value
                    done.add(index)
            waiting = [row for index, row in enumerate(waiting) if index not in done]
        return scores

    def _try_forward(self, rows: Sequence[Row], batch: Batch) -> list[float] | None:
        """Score one batch; where memory runs out, halve the budget and return None."""
        try:
            return self.forward.run(rows, batch)
        except torch.OutOfMemoryError as error:
            self.token_budget = smaller_budget(
                self.token_budget, self.forward.tokens(rows, batch), len(list(rows_of(batch))), self.device, error
            )
        # Only here have the failed forward's tensors been let go.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None


def smaller_budget(
    token_budget: int, tokens: int, rows: int, device: torch.device, error: torch.OutOfMemoryError
) -> int:
    """Return half the tokens of a forward that ran out of memory, and say so.

    Raises:
        torch.OutOfMemoryError: It held one row only.
    """
    if rows == 1:
        raise torch.OutOfMemoryError(
            f"A row must fit on {device} beside the policy, but one of {tokens} tokens does not. "
            "Lower the reward model's `max_length`, or place the reward model elsewhere."
        ) from error
    smaller = max(1, min(token_budget, tokens) // 2)
    logger.warning(
        "The reward model ran out of memory on %s with %d tokens in one forward: the token budget is %d now.",
        device,
        tokens,
        smaller,
    )
    return smaller
