"""GRPO with a verdict and a score for each completion, combined over whole groups."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer

from trl_hybrid.data.columns import check_mapped
from trl_hybrid.hybrid.combine import read_verdicts
from trl_hybrid.hybrid.difficulty import DifficultyWeight
from trl_hybrid.training.calibration import Calibrate, calibration_scores
from trl_hybrid.training.checkpoint import (
    SaveBetweenGenerations,
    TrainsToTheLastStep,
    load_state,
    replay_shuffles,
    save_state,
    warn_of_inexact_resume,
)
from trl_hybrid.training.config import HybridGRPOConfig
from trl_hybrid.training.judgement import Judgement
from trl_hybrid.training.reward_columns import (
    REWARD_MODEL,
    VERIFIER,
    as_list,
    check_names,
    hybrid_reward,
    scores_weigh,
    with_weights,
)
from trl_hybrid.training.seams import check_attributes, check_methods
from trl_hybrid.training.step_times import StepTimes


logger = get_logger(__name__)

RewardFunction = Callable[..., Sequence[float | None]]


class HybridGRPOTrainer(TrainsToTheLastStep, GRPOTrainer):
    """[`trl.GRPOTrainer`] whose reward combines a rule-based verifier with a reward model (HERO, arXiv 2510.07242).

    The only changes with respect to [`trl.GRPOTrainer`] are:

    - `__init__` takes the two judges and hands TRL the reward functions `[reward_model, verifier, *reward_funcs,
      hybrid_reward]`. Which of the judges' columns weighs is `args.reward_mode`'s: with `"hybrid"` the weights are
      `[0, 0, *reward_weights, 1]`, and the judges' own columns are logged only.
    - `_calculate_rewards` starts the verifier's processes before TRL calls the reward functions, so that verifying
      overlaps scoring, fills the hybrid column after TRL has gathered all processes' rows, because a prompt's group
      may be split over processes, and logs what the two judges tell, under `hybrid/`, and what takes the time, under
      `time/`.
    - `_generate_and_score_completions` multiplies the advantages by the difficulty weights.
    - `_save_checkpoint`, `_save_rng_state`, `_load_optimizer_and_scheduler` and `_get_train_sampler` carry the judges'
      state, a reference model that moves and the order of the prompts over a stop; saves move to the next boundary
      between generations. From there a run resumes bit for bit.
    - `_run_epoch` trains no step past the last one; see [`~trl_hybrid.training.checkpoint.TrainsToTheLastStep`].

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
        ValueError: One judge without the other, two reward functions of one name, an aggregation that does not go
            with the reward mode, rows without `prompt`, or a version of TRL without what is changed here.
        TypeError: Judges together with `args` that are not a [`HybridGRPOConfig`].
    """

    args: HybridGRPOConfig
    model: Any
    num_generations: int
    num_generations_eval: int
    verifier: Any = None
    reward_model: Any = None
    judgement: Judgement
    _weights: torch.Tensor | None = None
    _train_sampler: Any = None

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
            # What is trained without judges is not to be published as trained by this method.
            self._tag_names, self._name = GRPOTrainer._tag_names, GRPOTrainer._name
            self._paper = GRPOTrainer._paper
            super().__init__(model, reward_funcs, args, *trl_args, **trl_kwargs)
            return

        check_methods()
        for data in (trl_kwargs.get("train_dataset"), trl_kwargs.get("eval_dataset"), *trl_args[:2]):
            check_mapped(data, verifier)
        extras = as_list(reward_funcs)
        self._hybrid_column = 2 + len(extras)
        if trl_kwargs.get("reward_processing_classes") is not None:
            own = as_list(trl_kwargs["reward_processing_classes"])
            trl_kwargs["reward_processing_classes"] = [None, None, *own, None]
        columns: list[Any] = [reward_model, verifier, *extras, hybrid_reward]
        super().__init__(
            model,
            columns,
            with_weights(_hybrid_config(args, model), len(extras)),
            *trl_args,
            **trl_kwargs,
        )
        check_attributes(self)
        check_names(self.reward_func_names)
        self.judgement = Judgement(self.args)
        self.times = StepTimes(self)
        self.add_callback(self.times)
        self.add_callback(SaveBetweenGenerations(self))
        self.add_callback(Calibrate(self))
        warn_of_inexact_resume(self)
        if self.args.reward_mode == "hybrid":
            self._warn_of_what_upsets_the_order()

    def _warn_of_what_upsets_the_order(self) -> None:
        # Environments' own rewards stand behind the hybrid column.
        extras = self.reward_func_names[2 : self._hybrid_column] + self.reward_func_names[self._hybrid_column + 1 :]
        if extras:
            logger.warning(
                "The reward functions %s are added to the hybrid reward: where they differ by more than the gap "
                "between the bands, a wrong answer can be paid more than a right one.",
                ", ".join(extras),
            )
        if self.scale_rewards == "group":
            logger.warning(
                "scale_rewards 'group' divides by each group's deviation and so inflates the narrow band of a group "
                "without a right answer to full size: %d wrong answers, ranked by the reward model alone, push as "
                "hard as a group with right and wrong ones. It would also cancel a difficulty weight on rewards; here "
                "the weight is on advantages and stays. Leave it at 'none' unless that is what you want.",
                self.num_generations,
            )

    def _warn_of_saturation(self, weight: DifficultyWeight) -> None:
        mend = f"hybrid_k lower, to {weight.k / 2:.2g} for instance"
        if not weight.scale_free and weight.sigma_bar is not None and weight.sigma_bar > 1.0:
            mend = (
                f"hybrid_scale_free to true, or hybrid_k to {weight.k / weight.sigma_bar:.2g}: it counts in units of "
                f"the score, of which a group's deviation is {weight.sigma_bar:.2g} here"
            )
        logger.warning(
            "Step %d: the difficulty weight has become a switch: most groups of the last %d steps weigh about "
            "hybrid_w_min = %g or hybrid_w_max = %g (hybrid/weight_saturated). hybrid_k = %g is too steep for these "
            "scores. Set %s.",
            self.state.global_step,
            self.judgement.saturation.window,
            weight.w_min,
            weight.w_max,
            weight.k,
            mend,
        )

    # What a newer TRL gives besides is handed on, here and in `_generate_and_score_completions`.
    def _calculate_rewards(
        self,
        inputs: list[dict],
        prompts: list,
        completions: list,
        completion_ids_list: list[list[int]],
        *more: Any,
        **named: Any,
    ) -> torch.Tensor:
        if self.verifier is None:
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list, *more, **named)
        with self.times.measure("judging"):
            return self._pay(inputs, prompts, completions, completion_ids_list, *more, **named)

    def _pay(
        self,
        inputs: list[dict],
        prompts: list,
        completions: list,
        completion_ids_list: list[list[int]],
        *more: Any,
        **named: Any,
    ) -> torch.Tensor:
        """Have the judges look at this process's rows, and pay all processes' rows."""
        if hasattr(self.verifier, "prefetch") and "solution" in inputs[0]:
            self.verifier.prefetch(completions, [row["solution"] for row in inputs], prompts)
        cut_off = self.cut_off(completion_ids_list)
        inputs = [{**row, "completion_truncated": cut} for row, cut in zip(inputs, cut_off, strict=True)]
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list, *more, **named)
        self._judge(rewards, [len(ids) for ids in completion_ids_list])
        return rewards

    def _judge(self, rewards: torch.Tensor, own_lengths: list[int]) -> None:
        """Fill the hybrid column, leave out the rows that cannot be judged, and log what the judges tell.

        Args:
            rewards: All processes' rows, shape (N, number of reward functions), groups contiguous; changed in place.
            own_lengths: Lengths of this process's completions, in tokens.
        """
        lengths: Any = self.accelerator.gather(torch.tensor(own_lengths, dtype=rewards.dtype, device=rewards.device))
        paid, scores, lengths = torch.stack([rewards[:, VERIFIER], rewards[:, REWARD_MODEL], lengths]).cpu()
        verdicts = read_verdicts(paid, getattr(self.verifier, "correct_reward", 1.0))
        training = self.model.training
        group_size = self.num_generations if training else self.num_generations_eval
        judged = self.judgement.judge(verdicts, scores, lengths, group_size, training)
        self._weights = judged.weights

        own_rows = self._own_rows(len(own_lengths))
        self._log_completion_extra("verdict", verdicts[own_rows].tolist())
        self._log_completion_extra("score", scores[own_rows].tolist())
        self._log_completion_extra("disagreement", judged.disagreements[own_rows].tolist())
        for name, value in judged.figures.items():
            self._log_metric(f"hybrid/{name}", value)
        if judged.alarm:
            logger.warning(
                "Step %d: the reward model's mean score on wrong answers climbs while the pass rate falls. The policy "
                "may be learning to please the reward model. Read the rows marked `disagreement` in the completions "
                "table; a smaller hybrid_alpha, or KL (beta), holds it back.",
                self.state.global_step,
            )

        if judged.saturates and self.judgement.weight is not None:
            self._warn_of_saturation(self.judgement.weight)

        # TRL leaves a row out of its group's mean only when all its columns are NaN.
        unscored = ~scores.isfinite()
        left_out = verdicts.isnan() | (unscored & scores_weigh(self.args.reward_mode))
        rewards[:, self._hybrid_column] = judged.rewards.to(rewards)
        rewards[unscored.to(rewards.device), REWARD_MODEL] = torch.nan
        rewards[left_out.to(rewards.device)] = torch.nan

    def _generate_and_score_completions(self, inputs: list[dict], *more: Any, **named: Any) -> dict[str, Any]:
        if self.verifier is None:
            return super()._generate_and_score_completions(inputs, *more, **named)
        self.calibrate()  # an evaluation may come before training
        with self.times.measure("generation"):
            output = super()._generate_and_score_completions(inputs, *more, **named)
        if self._weights is not None:
            weights = self._weights.to(output["advantages"])
            output["advantages"] = output["advantages"] * weights[self._own_rows(len(inputs))]
            table = self._logs["advantages"]
            plain = torch.tensor([table.pop() for _ in range(len(weights))][::-1]).to(weights)
            table.extend((plain * weights).tolist())
        return output

    def _own_rows(self, count: int) -> slice:
        """Say which of the gathered rows are this process's, of which there are `count`."""
        start = self.accelerator.process_index * count
        return slice(start, start + count)

    def cut_off(self, completion_ids: list[list[int]]) -> list[bool]:
        """Say which completions the length limit cut off."""
        finished = [*self.eos_token_ids, self._tokenizer.pad_token_id]
        return [not ids or ids[-1] not in finished for ids in completion_ids]

    def calibrate(self) -> None:
        """Find the bounds of `hybrid_bounds="calibrated"`, unless they are known or not asked for.

        All processes must call it together; training and evaluation do so by themselves.

        Raises:
            ValueError: There are no prompts to answer, or no two finite scores of the answers differ.
        """
        if self.judgement.needs_calibration:
            self.judgement.bounds.calibrate(calibration_scores(self, self.args.hybrid_calibration_prompts))

    @property
    def generation_step(self) -> int:
        """Micro-batches trained on since the last generation; 0 where the next one generates."""
        return self._step % ((self.args.steps_per_generation or 1) * self.num_iterations)

    def resume_generation(self, step: int) -> None:
        """Go on `step` micro-batches after a generation; its completions are not there, so the next one generates."""
        self._step, self._buffered_inputs = step, None

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.verifier is not None:
            folder = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            save_state(self, Path(self._get_output_dir(trial=trial)) / folder)
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # The trainer's state comes next, and with it the checkpoint counts as whole: every process's part too.
        self.accelerator.wait_for_everyone()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.verifier is not None and checkpoint is not None:
            load_state(self, Path(checkpoint))
            replay_shuffles(self._train_sampler, epochs=int(self.state.epoch or 0))
            if self.state.global_step >= self.state.max_steps:
                # Nothing is generated any more, and TRL would write an empty table over the last step's.
                self.log_completions = False


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
