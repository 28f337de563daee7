"""The hybrid reward as one plain reward function, for TRL's stock trainers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from trl_hybrid.errors import InputError
from trl_hybrid.hybrid.bounds import Bounds
from trl_hybrid.hybrid.combine import HybridSettings, Singleton, count_non_finite, hybrid_rewards, read_verdicts
from trl_hybrid.hybrid.diagnostics import group_shares
from trl_hybrid.hybrid.group_size import find_group_size
from trl_hybrid.judges import Scorer, Verifier


RewardFunction = Callable[..., Sequence[float | None]]


class HybridReward:
    """Verdict and score combined within each prompt's group (HERO, arXiv 2510.07242, eq. 3), as a TRL reward function.

    For those who stay on [`trl.GRPOTrainer`]: `GRPOTrainer(model, reward_funcs=HybridReward(...), ...)`. With it, set
    `scale_rewards="none"`: dividing by the group's deviation inflates the narrow band of a group without a right
    answer to full size. It needs whole groups in each process: a reward function sees only its own process's
    completions, so `per_device_train_batch_size * steps_per_generation` must be a multiple of `num_generations`. The
    difficulty weight, which acts on advantages, is the hybrid trainer's alone.

    Args:
        verifier: Says right or wrong: a [`~trl_hybrid.judges.Verifier`], or any reward function that gives 1.0 for
            right.
        reward_model: Says how good: a [`~trl_hybrid.judges.Scorer`], or any reward function.
        num_generations: Completions per prompt. Default: those of the TRL trainer that calls, in training and in
            evaluation; where that cannot be asked, as many as stand to each prompt. Given, `num_generations_eval` must
            equal it or be a multiple of it.
        alpha: Half width of the wrong band, in (0, 1].
        beta: Half width of the right band, in (0, 1]; `alpha + beta` at most 1.
        eps: Added to the spread of the scores.
        singleton: See [`hybrid_rewards`].
        bounds: See [`hybrid_rewards`].
        calibrated: See [`hybrid_rewards`].

    Raises:
        ValueError: A value out of its range.
    """

    def __init__(
        self,
        verifier: Verifier | RewardFunction,
        reward_model: Scorer | RewardFunction,
        num_generations: int | None = None,
        *,
        alpha: float = 0.1,
        beta: float = 0.1,
        eps: float = 1e-6,
        singleton: Singleton = "middle",
        bounds: Bounds = "stratum",
        calibrated: tuple[float, float] | None = None,
    ) -> None:
        self.__name__ = "hybrid_reward"  # TRL logs the rewards under this name
        if num_generations is not None and num_generations < 1:
            raise InputError(f"num_generations must be at least 1, got {num_generations}.")
        self.settings = HybridSettings(eps, alpha, beta, singleton, bounds, calibrated)
        self.verifier, self.reward_model = verifier, reward_model
        self.num_generations = num_generations

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """The hybrid reward of each completion, as TRL's trainers ask for it.

        Args:
            prompts: Prompts, one per completion; those of one group are contiguous and equal.
            completions: Strings or TRL messages.
            log_extra: Takes the columns `verdict` and `score` for the completions table.
            log_metric: Takes the shares of kinds of groups, under `hybrid/`.
            **kwargs: The data set's columns and what else TRL passes, handed on to both judges.

        Returns:
            In [-alpha, 1 + beta]; `None` for a row that cannot be judged.

        Raises:
            ValueError: A group is not whole, or too many scores are not finite.
        """
        if not prompts:
            return []
        size = self.num_generations or find_group_size(prompts, log_extra)
        check_whole_groups(prompts, size)
        loggers = {"log_extra": log_extra, "log_metric": log_metric}
        arguments = {**kwargs, **{name: logger for name, logger in loggers.items() if logger is not None}}
        if hasattr(self.verifier, "prefetch") and kwargs.get("solution") is not None:
            ahead = kwargs["solution"], prompts, kwargs.get("completion_truncated")
            self.verifier.prefetch(completions, *ahead)  # pyright: ignore[reportFunctionMemberAccess]
        scores = _column(self.reward_model(prompts=prompts, completions=completions, **arguments))
        paid = _column(self.verifier(prompts=prompts, completions=completions, **arguments))
        verdicts = read_verdicts(paid, getattr(self.verifier, "correct_reward", Verifier.correct_reward))

        count_non_finite(scores[~verdicts.isnan()])
        if log_extra is not None:
            log_extra("verdict", _optional(verdicts))
            log_extra("score", scores.tolist())
        if log_metric is not None:
            for name, value in group_shares(verdicts, size).items():
                if value == value:
                    log_metric(f"hybrid/{name}", value)
        return _optional(hybrid_rewards(verdicts, scores, size, **vars(self.settings)))


def check_whole_groups(prompts: Sequence[Any], size: int) -> None:
    """Refuse rows that are no whole groups.

    Args:
        prompts: One per completion.
        size: Completions per prompt.

    Raises:
        InputError: Rows are left over, or the prompt changes within a group.
    """
    rows = len(prompts)
    if rows % size:
        problem = f"got {rows} completions"
    else:
        broken = [i for i in range(rows) if prompts[i] != prompts[i - i % size]]
        if not broken:
            return
        problem = f"completion {broken[0]} has another prompt than completion {broken[0] - broken[0] % size}"
    raise InputError(
        f"HybridReward needs whole groups of num_generations = {size} completions of the same prompt in each "
        f"process, {problem}. Make per_device_train_batch_size * steps_per_generation and "
        f"per_device_eval_batch_size multiples of {size}, and leave num_generations_eval at {size}; or use "
        "trl_hybrid.HybridGRPOTrainer, which combines after the processes' completions are gathered."
    )


def _column(values: Sequence[float | None]) -> torch.Tensor:
    return torch.tensor([torch.nan if value is None else value for value in values], dtype=torch.float64)


def _optional(values: torch.Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]
