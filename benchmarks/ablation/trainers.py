"""Trainers that put another paper's advantages in the place of the hybrid trainer's."""

from collections.abc import Callable
from typing import Any

import torch
from ablation.rivals import (
    consistent_only,
    entropy_shaped,
    group_normalised,
    quality_of_the_right,
    uniform_verdicts,
    verdict_sign,
    virtual_right_answer,
)

from trl_hybrid import HybridGRPOTrainer


Advantages = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Takes verdicts (N,), scores (N,) and the group's size; gives advantages (N,)."""

ADVANTAGES: dict[str, Advantages] = {
    "sign": verdict_sign,
    "ngrpo": virtual_right_answer,
    "rl_zvp": group_normalised,
    "prof": consistent_only,
    "papo": quality_of_the_right,
}
"""By the name that `rival` has in the plan."""


class RivalTrainer(HybridGRPOTrainer):
    """[`HybridGRPOTrainer`] with other advantages, made of the same verdicts and scores. One process only.

    The only change with respect to [`HybridGRPOTrainer`] is that `_generate_and_score_completions` overwrites the
    advantages. It reads verdicts and scores from the completions' table, as the hybrid trainer reads its weights.

    Args:
        *args: As in [`HybridGRPOTrainer`].
        advantages: Makes them.
        **kwargs: As in [`HybridGRPOTrainer`].
    """

    def __init__(self, *args: Any, advantages: Advantages, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.accelerator.num_processes > 1:
            raise ValueError(f"A rival trains in one process, got {self.accelerator.num_processes}.")
        self.advantages = advantages

    def _generate_and_score_completions(self, inputs: list[dict], *more: Any, **named: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs, *more, **named)
        if self.model.training:
            verdicts, scores = (
                torch.tensor(list(self._logs["extra"][name])[-len(inputs) :], dtype=torch.float64)
                for name in ("verdict", "score")
            )
            self._pay(output, verdicts, scores)
        return output

    def _pay(self, output: dict[str, Any], verdicts: torch.Tensor, scores: torch.Tensor) -> None:
        output["advantages"] = self.advantages(verdicts, scores, self.num_generations).to(output["advantages"])


class ZeroVarianceTrainer(RivalTrainer):
    """[`RivalTrainer`] that pays the tokens of groups of one verdict by their entropy (RL-ZVP, arXiv 2509.21880).

    The only changes with respect to [`RivalTrainer`] are that groups of one verdict are marked, and that
    `_get_per_token_logps_and_entropies` shapes the advantages of the batch whose loss is calculated: TRL calculates
    the entropies there, from the same forward as the loss, and reads the advantages after it.
    """

    _batch: dict[str, Any] | None = None

    def _pay(self, output: dict[str, Any], verdicts: torch.Tensor, scores: torch.Tensor) -> None:
        super()._pay(output, verdicts, scores)
        output["uniform"] = uniform_verdicts(verdicts, self.num_generations).to(output["advantages"])

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._batch = dict(inputs)
        try:
            return super()._compute_loss(model, self._batch)
        finally:
            self._batch = None

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        logps, entropies, aux_loss = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self._batch is not None and "uniform" in self._batch:
            batch = self._batch
            assert entropies is not None  # TRL asks for them where it calculates the loss
            batch["advantages"] = entropy_shaped(
                batch["advantages"], batch["uniform"], entropies, batch["completion_mask"]
            )
        return logps, entropies, aux_loss


def trainer_for(rival: str | None, *args: Any, **kwargs: Any) -> HybridGRPOTrainer:
    """Build the trainer of an arm: a rival's, or the hybrid trainer itself."""
    if rival is None:
        return HybridGRPOTrainer(*args, **kwargs)
    kind = ZeroVarianceTrainer if rival == "rl_zvp" else RivalTrainer
    return kind(*args, advantages=ADVANTAGES[rival], **kwargs)
