"""The reward model whole on one device."""

from collections.abc import Sequence

import torch

from trl_hybrid.reward_model.forwards import Forward
from trl_hybrid.reward_model.out_of_memory import score_what_fits, smaller_budget
from trl_hybrid.reward_model.plan import Batch, Row, rows_of


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
        """Score rows of token ids; see [`ScoringBackend`]."""
        return score_what_fits(rows, self._forwards, self._try_forward)

    def _forwards(self, rows: Sequence[Row]) -> list[list[Batch]]:
        return [[batch] for batch in self.forward.plan(rows, self.token_budget)]

    def _try_forward(self, rows: Sequence[Row], batches: list[Batch]) -> list[float] | None:
        """Score one batch; where memory runs out, halve the budget and return None."""
        [batch] = batches
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
