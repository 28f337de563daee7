"""GRPO with a verdict and a score for each completion, combined over whole groups."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from trl import GRPOTrainer

from trl_hybrid.data.columns import check_mapped
from trl_hybrid.errors import InputError
from trl_hybrid.hybrid.combine import read_verdicts
from trl_hybrid.judges import JudgeNames, Scorer, Verifier
from trl_hybrid.training.calibration import Calibrate, calibration_scores
from trl_hybrid.training.checkpoint import (
    JudgesState,
    SaveBetweenGenerations,
    TrainsToTheLastStep,
    checkpoint_folder,
    load_state,
    save_state,
    warn_of_inexact_resume,
)
from trl_hybrid.training.config import HybridGRPOConfig, judged_config
from trl_hybrid.training.judgement import Judgement
from trl_hybrid.training.reward_columns import (
    REWARD_MODEL,
    VERIFIER,
    as_list,
    check_names,
    hybrid_reward,
    order_warnings,
    scores_weigh,
    with_weights,
)
from trl_hybrid.training.seams import check_attributes, check_methods
from trl_hybrid.training.shared_prompts import SharesPrompts
from trl_hybrid.training.step_times import StepTimes


logger = get_logger(__name__)

RewardFunction = Callable[..., Sequence[float | None]]


class HybridGRPOTrainer(SharesPrompts, TrainsToTheLastStep, GRPOTrainer):
    """[`trl.GRPOTrainer`] whose reward combines a rule-based verifier with a reward model (HERO, arXiv 2510.07242).

    The only changes with respect to [`trl.GRPOTrainer`] are:

    - `__init__` takes the two judges and hands TRL the reward functions `[reward_model, verifier, *reward_funcs,
      hybrid_reward]`. Which of the judges' columns weighs is `args.reward_mode`'s: with `"hybrid"` the weights are
      `[0, 0, *reward_weights, 1]`, and the judges' own columns are logged only.
    - `_calculate_rewards` starts the verifier before TRL calls the reward functions, so that verifying overlaps
      scoring, and fills the hybrid column after TRL has gathered all processes' rows. A reward function, which is what
      is public, sees only its own process's rows, and a prompt's group may be split over processes.
    - `_generate_and_score_completions` multiplies the advantages by the difficulty weights. TRL calculates advantages
      within it and offers nothing in between; a weight on rewards would cancel where `scale_rewards` divides. The
      weights come from the completions' table, of which they are the column `difficulty_weight`.
    - `train`, `save_model` and two callbacks carry over a stop what the judges know, a reference model that moves and
      the order of the prompts; saves move to the next boundary between generations. From there a run resumes bit for
      bit. The judges' state stands in `trainer_state.json`, among the states of callbacks.
    - `_save_rng_state` waits for the other processes: the trainer's state comes next and makes a checkpoint whole, and
      no callback is called in between.
    - `_generate_single_turn`, `_get_per_token_logps_and_entropies` and `_prepare_inputs` compute a prompt once for all
      its completions, with `args.shared_prompts` also without judges; see
      [`~trl_hybrid.training.shared_prompts.SharesPrompts`].
    - `get_batch_samples` gives no batch after the last step; see
      [`~trl_hybrid.training.checkpoint.TrainsToTheLastStep`].

    Without judges, and without a [`HybridGRPOConfig`], it is a [`trl.GRPOTrainer`].

    Args:
        model: As in [`trl.GRPOTrainer`].
        reward_funcs: Further reward functions, added to the hybrid reward with `args.reward_weights`. They can
            overturn the order of right and wrong; the trainer says so once.
        args: A [`HybridGRPOConfig`] where judges are given.
        *trl_args: Further positional arguments of [`trl.GRPOTrainer`].
        verifier: Says right or wrong: a [`~trl_hybrid.judges.Verifier`], or any reward function that gives 1.0 for
            right.
        reward_model: Says how good: a [`~trl_hybrid.judges.Scorer`], or any reward function.
        **trl_kwargs: Further keyword arguments of [`trl.GRPOTrainer`].

    Raises:
        InputError: One judge without the other, two reward functions of one name, an aggregation that does not go
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
        verifier: Verifier | RewardFunction | None = None,
        reward_model: Scorer | RewardFunction | None = None,
        **trl_kwargs: Any,
    ) -> None:
        if (verifier is None) != (reward_model is None):
            missing = "verifier" if verifier is None else "reward_model"
            raise InputError(f"The hybrid reward needs both judges, got no `{missing}`. Pass it, or pass neither.")
        if verifier is None:
            # What is trained without judges is not to be published as trained by this method.
            self._tag_names, self._name = GRPOTrainer._tag_names, GRPOTrainer._name
            self._paper = GRPOTrainer._paper
            super().__init__(model, reward_funcs, args, *trl_args, **trl_kwargs)
            if getattr(self.args, "shared_prompts", False):
                self.share_prompts()
            return

        self.verifier, self.reward_model = verifier, reward_model
        check_methods()
        for data in (trl_kwargs.get("train_dataset"), trl_kwargs.get("eval_dataset"), *trl_args[:2]):
            check_mapped(data, verifier)
        extras = as_list(reward_funcs)
        self._hybrid_column = 2 + len(extras)
        if trl_kwargs.get("reward_processing_classes") is not None:
            own = as_list(trl_kwargs["reward_processing_classes"])
            trl_kwargs["reward_processing_classes"] = [None, None, *own, None]
        columns: list[Any] = [reward_model, verifier, *extras, hybrid_reward]
        args = with_weights(judged_config(args, model), len(extras))
        super().__init__(model, columns, args, *trl_args, **trl_kwargs)
        check_attributes(self)
        if self.args.shared_prompts:
            self.share_prompts()
        check_names(self.reward_func_names)
        self.judgement = Judgement(self.args)
        self.times = StepTimes(self)
        for callback in (self.times, SaveBetweenGenerations(self), JudgesState(self), Calibrate(self)):
            self.add_callback(callback)
        warn_of_inexact_resume(self)
        for text in order_warnings(self.args, self.reward_func_names, self._hybrid_column, self.num_generations):
            logger.warning(text)

    @property
    def judge_names(self) -> JudgeNames:
        """The judges' names, under which TRL logs them."""
        return JudgeNames(self.reward_func_names[REWARD_MODEL], self.reward_func_names[VERIFIER])

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
            cut_off = self.cut_off(completion_ids_list)
            if hasattr(self.verifier, "prefetch") and "solution" in inputs[0]:
                self.verifier.prefetch(completions, [row["solution"] for row in inputs], prompts, cut_off)
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
        verdicts = read_verdicts(paid, getattr(self.verifier, "correct_reward", Verifier.correct_reward))
        training = self.model.training
        group_size = self.num_generations if training else self.num_generations_eval
        judged = self.judgement.judge(verdicts, scores, lengths, group_size, training)

        unscored, unjudged = ~scores.isfinite(), verdicts.isnan()
        for name, column in judged.columns.items():
            self._log_completion_extra(name, column[self._own_rows(len(own_lengths))].tolist())
        for name, value in judged.figures.items():
            self._log_metric(f"hybrid/{name}", value)
        scored, known = (1.0 - rows.double().mean().item() for rows in (unscored, unjudged))
        for name, value in self.judge_names.figures(scored, known).items():
            self._log_metric(name, value)
        for text in judged.warnings:
            logger.warning("Step %d: %s", self.state.global_step, text)

        # TRL leaves a row out of its group's mean only when all its columns are NaN.
        left_out = unjudged | (unscored & scores_weigh(self.args.reward_mode))
        rewards[:, self._hybrid_column] = judged.rewards.to(rewards)
        rewards[unscored.to(rewards.device), REWARD_MODEL] = torch.nan
        rewards[left_out.to(rewards.device)] = torch.nan

    def _generate_and_score_completions(self, inputs: list[dict], *more: Any, **named: Any) -> dict[str, Any]:
        if self.verifier is None:
            return super()._generate_and_score_completions(inputs, *more, **named)
        self.calibrate()  # an evaluation may come before training
        with self.times.measure("generation"):
            output = super()._generate_and_score_completions(inputs, *more, **named)
        if self.model.training:
            count = self.accelerator.num_processes * len(inputs)
            weights, plain = (
                output["advantages"].new_tensor(list(table)[-count:])
                for table in (self._logs["extra"]["difficulty_weight"], self._logs["advantages"])
            )
            output["advantages"] = output["advantages"] * weights[self._own_rows(len(inputs))]
            for place, advantage in enumerate((plain * weights).tolist(), start=-count):
                self._logs["advantages"][place] = advantage
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
            InputError: There are no prompts to answer, or no two finite scores of the answers differ.
        """
        if self.judgement.needs_calibration:
            self.judgement.bounds.calibrate(calibration_scores(self, self.args.hybrid_calibration_prompts))

    @property
    def generation_step(self) -> int:
        """Micro-batches trained on since the last generation; 0 where the next one generates."""
        return self._step % ((self.args.steps_per_generation or 1) * self.num_iterations)

    @generation_step.setter
    def generation_step(self, step: int) -> None:
        self._step, self._buffered_inputs = step, None  # the completions are not there: the next one generates

    def train(self, resume_from_checkpoint: str | bool | None = None, *more: Any, **named: Any) -> Any:
        """Train as [`trl.GRPOTrainer`], going on with what a checkpoint knows of the judges."""
        folder = checkpoint_folder(resume_from_checkpoint, self.args.output_dir)
        if self.verifier is not None and folder is not None:
            load_state(self, folder)
        return super().train(resume_from_checkpoint, *more, **named)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as [`trl.GRPOTrainer`]; it is a checkpoint's first part, and what is ours goes before."""
        if self.verifier is not None and _internal_call and output_dir is not None:
            save_state(self, Path(output_dir))
        super().save_model(output_dir, _internal_call)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()
