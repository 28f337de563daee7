"""The columns of TRL's reward matrix, `[reward_model, verifier, *extras, hybrid_reward]`, and what each weighs.

TRL calls the reward functions one after the other. The reward model comes first, so that the verifier's processes work
while it scores, and the verifier's turn only collects what they found.
"""

import copy
from typing import Any

from trl_hybrid.config import HybridGRPOConfig, RewardMode


REWARD_MODEL, VERIFIER = 0, 1

JUDGES_WEIGHTS: dict[RewardMode, tuple[float, float, float]] = {  # reward model, verifier, hybrid
    "hybrid": (0.0, 0.0, 1.0),
    "verifier": (0.0, 1.0, 0.0),
    "reward_model": (1.0, 0.0, 0.0),
    "sum": (1.0, 1.0, 0.0),
    "gdpo": (1.0, 1.0, 0.0),
}


def hybrid_reward(prompts: list, **kwargs: Any) -> list[float | None]:
    """Hold the hybrid column's place among TRL's reward functions; the trainer fills it after the gather.

    Args:
        prompts: One per completion.
        **kwargs: What TRL passes to every reward function.

    Returns:
        `None` for each completion.
    """
    return [None] * len(prompts)


def scores_weigh(mode: RewardMode) -> bool:
    """Say whether the reward model's own column is optimised."""
    return JUDGES_WEIGHTS[mode][REWARD_MODEL] > 0.0


def check_names(names: list[str]) -> None:
    """Refuse two reward functions of one name.

    Raises:
        ValueError: A name stands more than once.
    """
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(
            f"Reward functions must have different names, got {sorted(repeated)} more than once among {names}. TRL "
            "logs by name: give each callable its own `__name__`."
        )


def as_list(value: Any) -> list:
    """Make a list of `None`, of one or of several, never the caller's own list: TRL changes it."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def with_weights(args: HybridGRPOConfig, extras: int) -> HybridGRPOConfig:
    """Copy the settings with one weight for each column, so that the user's own settings stay as they were given.

    Args:
        args: With `reward_weights` for the further reward functions only.
        extras: How many of these there are.

    Raises:
        ValueError: Another number of weights.
    """
    weights = [1.0] * extras if args.reward_weights is None else list(args.reward_weights)
    if len(weights) != extras:
        raise ValueError(
            f"reward_weights must have one weight for each of the {extras} further reward functions, got "
            f"{len(weights)}. What the judges and the hybrid reward weigh is reward_mode's."
        )
    args = copy.copy(args)
    *judges, hybrid = JUDGES_WEIGHTS[args.reward_mode]
    args.reward_weights = [*judges, *weights, hybrid]
    if args.reward_mode == "gdpo":
        args.multi_objective_aggregation = "normalize_then_sum"
    return args
