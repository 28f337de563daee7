"""The settings of hybrid-reward training: ours only, every other one is TRL's."""

import os
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trl import GRPOConfig

from trl_hybrid.errors import InputError
from trl_hybrid.hybrid.bounds import Bounds
from trl_hybrid.hybrid.combine import HybridSettings, Singleton, check_bands
from trl_hybrid.hybrid.difficulty import Spread, check_weight
from trl_hybrid.policy.source import has_bfloat16


RewardMode = Literal["hybrid", "verifier", "reward_model", "sum", "gdpo"]

CHOICES = {
    "reward_mode": get_args(RewardMode),
    "hybrid_bounds": get_args(Bounds),
    "hybrid_singleton": get_args(Singleton),
    "hybrid_sigma": get_args(Spread),
}


@dataclass
class HybridGRPOConfig(GRPOConfig):
    """Settings of [`HybridGRPOTrainer`]: [`trl.GRPOConfig`], what is optimised and the shape of the hybrid reward.

    The only changes with respect to [`trl.GRPOConfig`] are `reward_mode`, the `hybrid_*` fields, `shared_prompts`,
    `scale_rewards` (`"none"` here) and `bf16`, which is off where no device computes in it. `beta` stays TRL's KL
    coefficient and `epsilon` its clip; the bands are `hybrid_alpha` and `hybrid_beta`.

    Raises:
        InputError: One of these fields out of its range; the message names field, value and rule.
    """

    reward_mode: RewardMode = field(
        default="hybrid",
        metadata={
            "help": "What is optimised: `hybrid`; `verifier` or `reward_model`, one judge alone; `sum`, the "
            "verifier's reward plus the raw score; or `gdpo`, both normalised in each group and added (TRL's "
            "`normalize_then_sum`, which does not look at scale_rewards). All are computed and logged either way; "
            "further reward functions are added in each. The difficulty weight is the hybrid reward's alone."
        },
    )

    hybrid_alpha: float = field(
        default=0.1,
        metadata={
            "help": "Half width of the wrong band: wrong answers get between -hybrid_alpha and hybrid_alpha, by "
            "the reward model's score. In (0, 1]. It sets how much groups without a right answer speak: at 2 %% right "
            "answers about 5 %% of the squared advantage at 0.05, 16 %% at 0.1, 72 %% at 0.5."
        },
    )
    hybrid_beta: float = field(
        default=0.1,
        metadata={
            "help": "Half width of the right band: right answers get between 1 - hybrid_beta and "
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
    hybrid_singleton: Singleton = field(
        default="middle",
        metadata={
            "help": "Where a completion goes that no other of its group with the same verdict differs from in score: "
            "the `middle` of its band, or its `floor` as the paper's equation gives literally."
        },
    )
    hybrid_bounds: Bounds = field(
        default="stratum",
        metadata={
            "help": "The lowest and highest score that a score is rescaled by: those of the prompt's completions with "
            "the same verdict (`stratum`), of all the prompt's completions (`group`), or two numbers kept for the "
            "whole run (`calibrated`), found before the first step by answering the first prompts."
        },
    )
    hybrid_calibration_prompts: int = field(
        default=10,
        metadata={
            "help": "Prompts answered, num_generations times each, to find the bounds of hybrid_bounds `calibrated`: "
            "the first of the training set, or all where it has fewer. At least 1."
        },
    )
    hybrid_difficulty_weighting: bool = field(
        default=True,
        metadata={
            "help": "Whether to multiply each prompt's advantages by a weight between hybrid_w_min and hybrid_w_max, "
            "the higher the more the scores of its completions differ."
        },
    )
    hybrid_w_min: float = field(
        default=0.4, metadata={"help": "Lowest difficulty weight. Above 0 and at most hybrid_w_max."}
    )
    hybrid_w_max: float = field(
        default=3.0, metadata={"help": "Highest difficulty weight. A group of usual spread has the mean of the two."}
    )
    hybrid_k: float = field(
        default=6.0,
        metadata={
            "help": "Steepness of the difficulty weight, for each unit of the score by which a group's deviation "
            "exceeds the running mean of deviations. 0 or more."
        },
    )
    hybrid_sigma: Spread = field(
        default="group",
        metadata={
            "help": "Which deviation of a group's scores the difficulty weight goes by: that of all (`group`), which "
            "contains the gap between right and wrong, or that within each verdict (`stratum`)."
        },
    )
    hybrid_scale_free: bool = field(
        default=False,
        metadata={"help": "Whether hybrid_k counts in running means of the deviation instead of units of the score."},
    )
    hybrid_weight_mean_one: bool = field(
        default=False,
        metadata={"help": "Whether to divide the difficulty weights by their mean over each step's prompts."},
    )
    shared_prompts: bool = field(
        default=True,
        metadata={
            "help": "Whether generation and the update compute a prompt once for all its completions, and the update "
            "no padding: the same log-probabilities and gradients in less time and memory. The first batch is "
            "computed both ways and compared; where they differ, or the policy's attention cannot do it, TRL's way is "
            "taken."
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
        check_weight(self.hybrid_w_min, self.hybrid_w_max, self.hybrid_k, prefix="hybrid_")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                allowed = ", ".join(map(repr, choices))
                raise InputError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}.")
        if self.hybrid_calibration_prompts < 1:
            raise InputError(
                f"hybrid_calibration_prompts must be at least 1, got {self.hybrid_calibration_prompts}: calibrated "
                "bounds come from answers to that many prompts. To do without, set hybrid_bounds to stratum or group."
            )
        if self.bf16 is None and (self.use_cpu or not has_bfloat16()):
            self.bf16 = False
        self._check_whole_groups()
        super().__post_init__()

    def hybrid_settings(self, calibrated: tuple[float, float] | None) -> HybridSettings:
        """Return the shape of the hybrid reward.

        Args:
            calibrated: The bounds that were found, for `hybrid_bounds` `calibrated`.
        """
        return HybridSettings(
            eps=self.hybrid_eps,
            alpha=self.hybrid_alpha,
            beta=self.hybrid_beta,
            singleton=self.hybrid_singleton,
            bounds=self.hybrid_bounds,
            calibrated=calibrated if self.hybrid_bounds == "calibrated" else None,
        )

    def _check_whole_groups(self) -> None:
        """Say what to change where a group would not be whole; TRL's own messages name derived fields only."""
        if self.num_generations is not None and self.num_generations < 2:
            raise InputError(
                f"num_generations must be at least 2, got {self.num_generations}: advantages compare the answers to "
                "one prompt. A usual value is 8."
            )
        if self.steps_per_generation is not None or self.generation_batch_size is not None:
            return
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        rows = self.per_device_train_batch_size * processes * self.gradient_accumulation_steps
        group = self.num_generations or 1
        if rows % group:
            raise InputError(
                f"num_generations must divide the completions of a step, got {self.num_generations} for {rows} "
                f"(per_device_train_batch_size {self.per_device_train_batch_size} x {processes} process(es) x "
                f"gradient_accumulation_steps {self.gradient_accumulation_steps}). Set num_generations to a divisor "
                f"of {rows}, or per_device_train_batch_size to a multiple of {self.num_generations}."
            )


def judged_config(args: Any, model: Any) -> HybridGRPOConfig:
    """Return the settings of a trainer with judges: those given, or the defaults under the model's name.

    Args:
        args: What the trainer was given.
        model: Its model, or the name of that.

    Raises:
        TypeError: They are TRL's own.
    """
    if args is None:
        name = model if isinstance(model, str) else model.config._name_or_path
        return HybridGRPOConfig(f"{name.rstrip('/').split('/')[-1]}-HybridGRPO")
    if not isinstance(args, HybridGRPOConfig):
        raise TypeError(
            f"With judges, `args` must be a HybridGRPOConfig, got {type(args).__name__}: the bands of the hybrid "
            "reward are set there. Replace GRPOConfig by trl_hybrid.HybridGRPOConfig."
        )
    return args
