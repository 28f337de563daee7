"""The columns of TRL's reward matrix, `[reward_model, verifier, *extras, hybrid_reward]`, and what each weighs.

TRL calls the reward functions one after the other. The reward model comes first, so that the verifier's processes work
while it scores, and the verifier's turn only collects what they found.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from trl_hybrid.errors import InputError
from trl_hybrid.training.config import HybridGRPOConfig, RewardMode


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


def judges_pay(mode: RewardMode, scores: torch.Tensor, verdicts: torch.Tensor, hybrid: torch.Tensor) -> torch.Tensor:
    """Add up what the judges pay in a mode, without further reward functions.

    `gdpo` normalises before it adds; within a group of one verdict it tells apart what the plain sum does.

    Args:
        mode: What is optimised.
        scores: Shape (N,), any real numbers.
        verdicts: Shape (N,), 1.0 right, 0.0 wrong, NaN unjudgeable.
        hybrid: Hybrid rewards, shape (N,).

    Returns:
        Shape (N,); NaN for a row that is left out in this mode.

    >>> scores, verdicts, hybrid = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, -0.1])
    >>> judges_pay("sum", scores, verdicts, hybrid).tolist(), judges_pay("verifier", scores, verdicts, hybrid).tolist()
    ([4.0, 5.0], [1.0, 0.0])
    """
    columns = zip(JUDGES_WEIGHTS[mode], (scores, verdicts, hybrid), strict=True)
    paid = torch.stack([weight * column for weight, column in columns if weight]).sum(dim=0)
    return paid.where(paid.isfinite() & ~verdicts.isnan(), torch.nan)


def check_aggregation(args: HybridGRPOConfig) -> None:
    """Refuse an aggregation that undoes what the judges' rewards say. Without judges each of TRL's is fine.

    Raises:
        InputError: `normalize_then_sum` where the sizes of rewards carry their meaning.
    """
    if args.multi_objective_aggregation == "normalize_then_sum" and args.reward_mode in ("hybrid", "sum"):
        raise InputError(
            f"reward_mode {args.reward_mode!r} cannot go with multi_objective_aggregation 'normalize_then_sum': it "
            "divides by the deviation of each group and then of the batch, which undoes the sizes of rewards. Leave "
            "multi_objective_aggregation out, or set reward_mode to gdpo."
        )


def check_names(names: list[str]) -> None:
    """Refuse two reward functions of one name.

    Raises:
        InputError: A name stands more than once.
    """
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise InputError(
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
        InputError: Another number of weights, or an aggregation that does not go with the reward mode.
    """
    check_aggregation(args)
    weights = [1.0] * extras if args.reward_weights is None else list(args.reward_weights)
    if len(weights) != extras:
        raise InputError(
            f"reward_weights must have one weight for each of the {extras} further reward functions, got "
            f"{len(weights)}. What the judges and the hybrid reward weigh is reward_mode's."
        )
    args = copy.copy(args)
    *judges, hybrid = JUDGES_WEIGHTS[args.reward_mode]
    args.reward_weights = [*judges, *weights, hybrid]
    if args.reward_mode == "gdpo":
        args.multi_objective_aggregation = "normalize_then_sum"
    return args


def order_warnings(args: HybridGRPOConfig, names: Sequence[str], hybrid_column: int, group_size: int) -> Iterator[str]:
    """Say what gives a wrong answer a higher reward than a right one, or push as hard, where the reward is hybrid.

    Args:
        args: What is optimised and how advantages are scaled.
        names: Of all reward functions; environments' own rewards stand behind the hybrid column.
        hybrid_column: Its place among them.
        group_size: Completions per prompt.
    """
    if args.reward_mode != "hybrid":
        return
    extras = [*names[2:hybrid_column], *names[hybrid_column + 1 :]]
    if extras:
        yield (
            f"The reward functions {', '.join(extras)} are added to the hybrid reward: where they differ by more than "
            "the gap between the bands, a wrong answer can get a higher reward than a right one."
        )
    if args.scale_rewards == "group":
        yield (
            "scale_rewards 'group' divides by each group's deviation and so inflates the narrow band of a group "
            f"without a right answer to full size: {group_size} wrong answers, ranked by the reward model alone, push "
            "as hard as a group with right and wrong ones. It would also cancel a difficulty weight on rewards; here "
            "the weight is on advantages and stays. Leave it at 'none' unless that is what you want."
        )
