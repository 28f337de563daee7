"""Checkpoints from which a run goes on as if it had never stopped, or which say that it does not."""

from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from safetensors.torch import load_model, save_model
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy, get_last_checkpoint
from trl.trainer.utils import RepeatSampler

from trl_hybrid.errors import InputError
from trl_hybrid.runs.folder import JUDGES, judges_state, read_json, write_json


logger = get_logger(__name__)

REFERENCE_FILE = "reference_model.safetensors"


def save_state(trainer: Any, folder: Path) -> None:
    """Write what no `trainer_state.json` can hold into a checkpoint's folder, before anything else is written there.

    The reward model's remembered scores are each process's own: one computed anew, in another batch, may differ from
    it in the last bits.

    Args:
        trainer: A `HybridGRPOTrainer` with judges.
        folder: The checkpoint's folder; made where it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if trainer.args.should_save:
        # Written over, a checkpoint is whole only when its trainer state is written again.
        (folder / "trainer_state.json").unlink(missing_ok=True)
        if _moving_reference(trainer) and not _in_parts(trainer):
            save_model(trainer.accelerator.unwrap_model(trainer.ref_model), str(folder / REFERENCE_FILE))
    trainer.accelerator.wait_for_everyone()
    if hasattr(trainer.reward_model, "state_dict"):
        write_json(_scores_file(trainer, folder), trainer.reward_model.state_dict())


def checkpoint_folder(resume: str | bool | None, output_dir: str | None) -> Path | None:
    """Return the folder that transformers will resume from; `None` where it starts anew, or will find none."""
    if resume is True and output_dir is not None:
        resume = get_last_checkpoint(output_dir)
    return Path(resume) if isinstance(resume, str) else None


def load_state(trainer: Any, folder: Path) -> None:
    """Go on with the judges as a checkpoint knows them. What it does not hold starts anew, which is said.

    Args:
        trainer: A `HybridGRPOTrainer` with judges.
        folder: The checkpoint's folder.
    """
    _load_reference(trainer, folder)
    if not trainer.is_deepspeed_enabled and not (folder / "optimizer.pt").exists():
        logger.warning(
            "The checkpoint %s has no optimizer.pt (save_only_model): the optimizer, the learning rate's schedule and "
            "the random numbers start anew, and the run goes on otherwise than an unbroken one.",
            folder,
        )
    state = judges_state(folder)
    if not state:
        logger.warning("The checkpoint %s knows no judges: their running figures start anew.", folder)
        return
    trainer.judgement.load_state_dict(state["judgement"])
    trainer.generation_step = state["generation_step"]
    if state["generation_step"]:
        logger.warning(
            "The checkpoint %s was saved within a generation, whose completions are not kept: the rest of it is "
            "generated anew, and the run goes on a little otherwise than an unbroken one.",
            folder,
        )
    scores = read_json(_scores_file(trainer, folder))
    if scores and hasattr(trainer.reward_model, "load_state_dict"):
        trainer.reward_model.load_state_dict(scores)


def _load_reference(trainer: Any, folder: Path) -> None:
    if not _moving_reference(trainer):
        return
    if (folder / REFERENCE_FILE).exists() and not _in_parts(trainer):
        load_model(trainer.accelerator.unwrap_model(trainer.ref_model), folder / REFERENCE_FILE)
        return
    logger.warning(
        "The checkpoint %s does not hold the reference model that sync_ref_model had moved: KL is measured against "
        "the untrained policy until the next synchronisation.",
        folder,
    )


def _moving_reference(trainer: Any) -> bool:
    """Say whether the reference model is more than what it was loaded as; TRL refuses that for adapters."""
    return trainer.args.sync_ref_model and trainer.ref_model is not None


def _in_parts(trainer: Any) -> bool:
    """Say whether no process holds the whole reference model, as under ZeRO-3 and FSDP."""
    return trainer.is_fsdp_enabled or any(hasattr(weight, "ds_id") for weight in trainer.ref_model.parameters())


def warn_of_inexact_resume(trainer: Any) -> None:
    """Say once, before training, what its checkpoints will not hold.

    Args:
        trainer: A `HybridGRPOTrainer` with judges.
    """
    if trainer.args.save_only_model and trainer.args.save_strategy != SaveStrategy.NO:
        logger.warning(
            "save_only_model: checkpoints hold no optimizer and no random state. A run that is resumed from one goes "
            "on otherwise than an unbroken one%s. Leave save_only_model out to resume exactly.",
            ", and DeepSpeed refuses to" if trainer.is_deepspeed_enabled else "",
        )
    if _moving_reference(trainer) and _in_parts(trainer):
        logger.warning(
            "sync_ref_model: checkpoints do not hold the reference model where it is sharded (ZeRO-3, FSDP). A run "
            "that is resumed measures KL against the untrained policy until the next synchronisation."
        )


def check_save_strategy(args: Any) -> None:
    """Refuse to keep the best checkpoint where nothing looks for it.

    Raises:
        InputError: `save_strategy` is `best`, and the trainer's own evaluation, which finds the best, is off.
    """
    if args.save_strategy == SaveStrategy.BEST:
        raise InputError(
            "save_strategy 'best' saves when the trainer's own evaluation finds a better model, and this recipe has "
            "no such evaluation: nothing would ever be saved. Set save_strategy to steps, and save_steps; the GRPO "
            "recipe's eval_accuracy_steps then says how good each checkpoint is."
        )


def replay_shuffles(sampler: RepeatSampler, epochs: int) -> None:
    """Draw the orders of the epochs that are over, so that the next one has the order of an unbroken run.

    TRL's sampler draws each epoch's order from where the last one left its generator, and a resumed run starts with a
    fresh one: without this, its next epoch would be the first one again.

    Args:
        sampler: The training set's.
        epochs: Whole epochs trained.
    """
    if sampler.shuffle:
        for _ in range(epochs):
            torch.randperm(sampler.num_samples, generator=sampler.generator)


def _sampler_of(loader: Any) -> Any:
    """Find what draws the order of a loader's rows; `None` where rows are streamed."""
    batches = loader.batch_sampler
    return getattr(getattr(batches, "batch_sampler", batches), "sampler", None)  # accelerate shares batches out


def _scores_file(trainer: Any, folder: Path) -> Path:
    return folder / f"reward_model_state_{trainer.accelerator.process_index}.json"


class JudgesState(TrainerCallback):
    """Keep what the judges know in the trainer's state, with which it is saved; on resume, find the prompts' order.

    It is no `ExportableState`: transformers would rebuild such a callback from its JSON, without its trainer. What is
    put among `stateful_callbacks` is saved just the same.

    Args:
        trainer: A `HybridGRPOTrainer` with judges.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Bring the sampler of a resumed run to where it was."""
        if state.global_step >= state.max_steps:
            # Nothing is generated any more, and TRL would write an empty table over the last step's.
            self.trainer.log_completions = False
        epochs = int(state.epoch or 0)
        sampler = _sampler_of(kwargs["train_dataloader"])
        if isinstance(sampler, RepeatSampler):
            replay_shuffles(sampler, epochs)
        elif epochs:
            # A stream has no length: transformers finds its place within the first pass only, and starts a later one
            # from its beginning.
            logger.warning(
                "The training set is streamed and was past its first pass (epoch %d): its prompts come in another "
                "order than in an unbroken run. Leave dataset_streaming out to resume exactly.",
                epochs,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put down what the judges know after a step; all saves come after it."""
        state.stateful_callbacks[JUDGES] = {
            "judgement": self.trainer.judgement.state_dict(),
            "generation_step": self.trainer.generation_step,
        }


class OrderOfTheEpoch(TrainerCallback):
    """Tell a sampler that draws an order for each epoch which one begins.

    accelerate does so too, but where several processes resume within an epoch, what skips the batches and what shares
    them out both stand around the sampler, and it does not reach that far: it would draw the first epoch's order.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the sampler."""
        sampler = _sampler_of(kwargs["train_dataloader"])
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(int(state.epoch or 0))


class SaveBetweenGenerations(TrainerCallback):
    """Put a save that falls within a generation off to its end, from where a run resumes bit for bit.

    The last step's save stays where it is, and so do all with `load_best_model_at_end` or `save_strategy="best"`,
    which belong to the step that was evaluated.

    Args:
        trainer: A `HybridGRPOTrainer` with judges.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.due = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take a save that is asked for too early, and ask for it at the generation's end."""
        if args.load_best_model_at_end:
            return
        self.due = self.due or control.should_save
        control.should_save = self.due and (self.trainer.generation_step == 0 or control.should_training_stop)
        self.due = self.due and not control.should_save

    on_epoch_end = on_step_end


class TrainsToTheLastStep:
    """Mixin for a `transformers.Trainer`: a run resumed after its last step is only measured and saved.

    By itself the trainer goes one step past `max_steps` where that does not end an epoch: it looks at `max_steps` only
    after a step.
    """

    state: Any
    control: Any

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """Return a step's batches; none after the last step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue] - the trainer's
