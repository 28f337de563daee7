"""The settings of hybrid-reward training: ours only, every other one is TRL's."""

import os
from dataclasses import dataclass, field
from typing import Literal

from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from trl_hybrid.hybrid.combine import check_bands


@dataclass
class HybridGRPOConfig(GRPOConfig):
    """Settings of [`HybridGRPOTrainer`]: [`trl.GRPOConfig`] and the shape of the hybrid reward.

    The only changes with respect to [`trl.GRPOConfig`] are the `hybrid_*` fields, `scale_rewards` (`"none"` here) and
    `bf16`, which is off where no device computes in it. `beta` stays TRL's KL coefficient and `epsilon` its clip; the
    bands are `hybrid_alpha` and `hybrid_beta`.

    Raises:
        ValueError: A `hybrid_*` field out of its range; the message names field, value and rule.
    """

    hybrid_alpha: float = field(
        default=0.1,
        metadata={
            "help": "Half width of the wrong band: wrong answers are paid between -hybrid_alpha and hybrid_alpha, by "
            "the reward model's score. In (0, 1]. It sets how much groups without a right answer speak: at 2 %% right "
            "answers about 5 %% of the squared advantage at 0.05, 16 %% at 0.1, 72 %% at 0.5."
        },
    )
    hybrid_beta: float = field(
        default=0.1,
        metadata={
            "help": "Half width of the right band: right answers are paid between 1 - hybrid_beta and "
            "1 + hybrid_beta. In (0, 1]; hybrid_alpha + hybrid_beta at most 1, so that no wrong answer outranks a "
            "right one. Not TRL's `beta`, which is the KL coefficient."
        },
    )
    hybrid_eps: float = field(
        default=1e-6,
        metadata={
            "help": "Added to the spread of the scores before dividing by it, in units of the score. Above 0. Larger "
            "values shrink the bands of groups that the reward model hardly tells apart."
        },
    )
    hybrid_singleton: Literal["middle", "floor"] = field(
        default="middle",
        metadata={
            "help": "Where a completion goes that no other of its group with the same verdict differs from in score: "
            "the `middle` of its band, or its `floor` as the paper's equation gives literally."
        },
    )
    scale_rewards: str = field(
        default="none",
        metadata={
            "help": "How advantages are scaled: `none` (the default here), `group` (TRL's default) or `batch`. "
            "Dividing by the group's deviation inflates the narrow band of a group without a right answer to full "
            "size: eight wrong answers, ranked by the reward model alone, would push harder than a group with one "
            "right answer. Adam cancels a constant scale, so the learning rate need not change."
        },
    )

    def __post_init__(self) -> None:
        check_bands(self.hybrid_alpha, self.hybrid_beta, self.hybrid_eps, prefix="hybrid_")
        if self.hybrid_singleton not in ("middle", "floor"):
            raise ValueError(f"hybrid_singleton must be 'middle' or 'floor', got {self.hybrid_singleton!r}.")
        if self.bf16 is None and (self.use_cpu or not is_torch_bf16_gpu_available()):
            self.bf16 = False
        self._check_whole_groups()
        super().__post_init__()

    def _check_whole_groups(self) -> None:
        """Say what to change when a step would hold part of a group; TRL's own message names derived fields only."""
        if self.steps_per_generation is not None or self.generation_batch_size is not None:
            return
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        rows = self.per_device_train_batch_size * processes * self.gradient_accumulation_steps
        group = self.num_generations or 0
        if group >= 2 and rows % group:
            raise ValueError(
                f"num_generations must divide the completions of a step, got {self.num_generations} for {rows} "
                f"(per_device_train_batch_size {self.per_device_train_batch_size} x {processes} process(es) x "
                f"gradient_accumulation_steps {self.gradient_accumulation_steps}). Set num_generations to a divisor "
                f"of {rows}, or per_device_train_batch_size to a multiple of {self.num_generations}."
            )
