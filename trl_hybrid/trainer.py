"""GRPO with a verdict and a score for each completion, combined over whole groups."""

import copy
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.logging import get_logger
from trl import GRPOTrainer

from trl_hybrid.config import HybridGRPOConfig
from trl_hybrid.hybrid.combine import hybrid_rewards
from trl_hybrid.hybrid.diagnostics import group_shares


logger = get_logger(__name__)

RewardFunction = Callable[..., Sequence[float | None]]

VERIFIER, REWARD_MODEL = 0, 1


def hybrid_reward(prompts: list, **kwargs: Any) -> list[float | None]:
    """Hold the hybrid column's place among TRL's reward functions; the trainer fills it after the gather.

    Args:
        prompts: One per completion.
        **kwargs: What TRL passes to every reward function.

    Returns:
        `None` for each completion.
    """
    return [None] * len(prompts)


class HybridGRPOTrainer(GRPOTrainer):
    """[`trl.GRPOTrainer`] whose reward combines a rule-based verifier with a reward model (HERO, arXiv 2510.07242).

    The only changes with respect to [`trl.GRPOTrainer`] are:

    - `__init__` takes the two judges and hands TRL the reward functions `[verifier, reward_model, *reward_funcs,
      hybrid_reward]` with the weights `[0, 0, *reward_weights, 1]`: the judges' columns are logged and weigh nothing.
    - `_calculate_rewards` starts the verifier's processes before TRL calls the reward functions, so that verifying
      overlaps scoring, and fills the hybrid column after TRL has gathered all processes' rows, because a prompt's
      group may be split over processes.

    Without judges it is a [`trl.GRPOTrainer`].

    Args:
        model: As in [`trl.GRPOTrainer`].
        reward_funcs: Further reward functions, added to the hybrid reward with `args.reward_weights`. They can
            overturn the order of right and wrong; the trainer says so once.
        args: A [`HybridGRPOConfig`] where judges are given.
        *trl_args: Further positional arguments of [`trl.GRPOTrainer`].
        verifier: A TRL reward function that returns its `correct_reward` (1.0 where it has no such attribute) for a
            right answer, anything lower for a wrong one and `None` for a row that cannot be judged. Where it has a
            method `prefetch(completions, solutions, prompts)`, that is called first.
        reward_model: A TRL reward function that returns any real number, the higher the better. It receives
            `completion_truncated`, a list of bool: was the completion cut off by the length limit?
        **trl_kwargs: Further keyword arguments of [`trl.GRPOTrainer`].

    Raises:
        ValueError: One judge without the other, or two reward functions of one name.
        TypeError: Judges together with `args` that are not a [`HybridGRPOConfig`].
    """

    args: HybridGRPOConfig
    model: Any
    num_generations: int
    num_generations_eval: int
    verifier: Any = None
    reward_model: Any = None

    _tag_names = ["trl", "grpo", "hybrid-reward"]  # noqa: RUF012 - TRL declares it so
    _name = "Hybrid-reward GRPO"
    _paper = {  # noqa: RUF012 - TRL declares it so
        "title": "Hybrid Reinforcement: When Reward Is Sparse, It's Better to Be Dense",
        "id": "2510.07242",
        "citation": textwrap.dedent("""\
            @article{tao2025hybrid,
                title        = {{Hybrid Reinforcement: When Reward Is Sparse, It's Better to Be Dense}},
                author       = {Leitian Tao and Ilia Kulikov and Swarnadeep Saha and Tianlu Wang and Jing Xu and Yixuan Li and Jason E Weston and Ping Yu},
                year         = 2025,
                eprint       = {arXiv:2510.07242},
            }"""),  # noqa: E501
    }

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        *trl_args: Any,
        verifier: RewardFunction | None = None,
        reward_model: RewardFunction | None = None,
        **trl_kwargs: Any,
    ) -> None:
        if (verifier is None) != (reward_model is None):
            missing = "verifier" if verifier is None else "reward_model"
            raise ValueError(f"The hybrid reward needs both judges, got no `{missing}`. Pass it, or pass neither.")
        self.verifier, self.reward_model = verifier, reward_model
        if verifier is None or reward_model is None:
            super().__init__(model, reward_funcs, args, *trl_args, **trl_kwargs)
            return

        extras = _as_list(reward_funcs)
        self._hybrid_column = 2 + len(extras)
        if trl_kwargs.get("reward_processing_classes") is not None:
            own = _as_list(trl_kwargs["reward_processing_classes"])
            trl_kwargs["reward_processing_classes"] = [None, None, *own, None]
        columns: list[Any] = [verifier, reward_model, *extras, hybrid_reward]
        super().__init__(
            model,
            columns,
            _with_judges_weights(_hybrid_config(args, model), len(extras)),
            *trl_args,
            **trl_kwargs,
        )
        self._check_names()
        if extras:
            logger.warning(
                "The reward functions %s are added to the hybrid reward: where they differ by more than the gap "
                "between the bands, a wrong answer can be paid more than a right one.",
                ", ".join(self.reward_func_names[2 : self._hybrid_column]),
            )

    def _check_names(self) -> None:
        repeated = {name for name in self.reward_func_names if self.reward_func_names.count(name) > 1}
        if repeated:
            raise ValueError(
                f"Reward functions must have different names, got {sorted(repeated)} more than once among "
                f"{self.reward_func_names}. TRL logs by name: give each callable its own `__name__`."
            )

    def _calculate_rewards(
        self, inputs: list[dict], prompts: list, completions: list, completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        if self.verifier is None:
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if hasattr(self.verifier, "prefetch") and "solution" in inputs[0]:
            self.verifier.prefetch(completions, [row["solution"] for row in inputs], prompts)
        finished = [*self.eos_token_ids, self._tokenizer.pad_token_id]
        cut_off = [not ids or ids[-1] not in finished for ids in completion_ids_list]
        inputs = [{**row, "completion_truncated": cut} for row, cut in zip(inputs, cut_off, strict=True)]
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

        own_rows = slice(
            self.accelerator.process_index * len(prompts), (self.accelerator.process_index + 1) * len(prompts)
        )
        self._log_completion_extra("score", rewards[own_rows, REWARD_MODEL].tolist())
        rewards[:, self._hybrid_column] = self._combine(rewards)
        # TRL leaves a row out of its group's mean only when all its columns are NaN.
        rewards[rewards[:, self._hybrid_column].isnan()] = torch.nan
        return rewards

    def _combine(self, rewards: torch.Tensor) -> torch.Tensor:
        """Turn the gathered judges' columns into the hybrid one.

        Args:
            rewards: All processes' rows, shape (N, number of reward functions), groups contiguous.

        Returns:
            Shape (N,); NaN where the row cannot be judged.
        """
        group_size = self.num_generations if self.model.training else self.num_generations_eval
        paid, scores = rewards[:, VERIFIER], rewards[:, REWARD_MODEL]
        correct_reward = torch.tensor(getattr(self.verifier, "correct_reward", 1.0), dtype=paid.dtype)
        verdicts = torch.where(paid.isnan(), torch.nan, (paid >= correct_reward.to(paid.device)).to(paid.dtype))
        self._count_non_finite(scores[~verdicts.isnan()])
        for name, value in group_shares(verdicts, group_size).items():
            self._log_metric(f"hybrid/{name}", value)
        return hybrid_rewards(
            verdicts,
            scores,
            group_size,
            eps=self.args.hybrid_eps,
            alpha=self.args.hybrid_alpha,
            beta=self.args.hybrid_beta,
            singleton=self.args.hybrid_singleton,
        ).to(rewards.dtype)

    def _count_non_finite(self, scores: torch.Tensor) -> None:
        """Log how many scores are NaN or infinite, and stop where they are more than one row and 1 % of the batch."""
        broken = int((~scores.isfinite()).sum())
        self._log_metric("hybrid/non_finite_scores", float(broken))
        if broken > max(1, len(scores) // 100):
            raise ValueError(
                f"{broken} of {len(scores)} reward model scores are NaN or infinite; at most 1 % are put up with. "
                "Check the reward model's weights and dtype: bfloat16 or float32, never float16."
            )


def _as_list(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _hybrid_config(args: Any, model: Any) -> HybridGRPOConfig:
    if args is None:
        name = model if isinstance(model, str) else model.config._name_or_path
        return HybridGRPOConfig(f"{name.rstrip('/').split('/')[-1]}-HybridGRPO")
    if not isinstance(args, HybridGRPOConfig):
        raise TypeError(
            f"With judges, `args` must be a HybridGRPOConfig, got {type(args).__name__}: the bands of the hybrid "
            "reward are set there. Replace GRPOConfig by trl_hybrid.HybridGRPOConfig."
        )
    return args


def _with_judges_weights(args: HybridGRPOConfig, extras: int) -> HybridGRPOConfig:
    """Copy the settings with one weight for each column, so that the user's own settings stay as they were given."""
    weights = [1.0] * extras if args.reward_weights is None else list(args.reward_weights)
    if len(weights) != extras:
        raise ValueError(
            f"reward_weights must have one weight for each of the {extras} further reward functions, got "
            f"{len(weights)}. The judges and the hybrid reward have none: the hybrid reward always weighs 1."
        )
    args = copy.copy(args)
    args.reward_weights = [0.0, 0.0, *weights, 1.0]
    return args
