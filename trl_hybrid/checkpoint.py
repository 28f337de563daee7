"""Checkpoints from which a run goes on as if it had never stopped, and saving when it is told to stop."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from accelerate.logging import get_logger
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from trl_hybrid.run_folder import read_json, write_json


logger = get_logger(__name__)

STATE_FILE = "hybrid_state.json"


def save_state(trainer: Any, folder: Path) -> None:
    """Write what the trainer adds to TRL's state into a checkpoint's folder, before anything else is written there.

    The judges' state is the same on every process and written once. The reward model's remembered scores are each
    process's own: one computed anew, in another batch, may differ from it in the last bits.

    Args:
        trainer: A `HybridGRPOTrainer` with judges.
        folder: The checkpoint's folder; made where it does not exist.
    """
    if trainer.args.should_save:
        # Written over, a checkpoint is whole only when its trainer state is written again.
        (folder / "trainer_state.json").unlink(missing_ok=True)
        state = {"judgement": trainer.judgement.state_dict(), "generation_step": trainer.generation_step}
        write_json(folder / STATE_FILE, state)
    trainer.accelerator.wait_for_everyone()
    if hasattr(trainer.reward_model, "state_dict"):
        write_json(_scores_file(trainer, folder), trainer.reward_model.state_dict())


def load_state(trainer: Any, folder: Path) -> None:
    """Go on from `save_state`. What an older checkpoint does not hold starts anew.

    Args:
        trainer: A `HybridGRPOTrainer` with judges.
        folder: The checkpoint's folder.
    """
    state = read_json(folder / STATE_FILE)
    if not state:
        logger.warning("The checkpoint %s has no %s: the judges' running figures start anew.", folder, STATE_FILE)
        return
    trainer.judgement.load_state_dict(state["judgement"])
    trainer.resume_generation(state["generation_step"])
    if state["generation_step"]:
        logger.warning(
            "The checkpoint %s was saved within a generation, whose completions are not kept: the rest of it is "
            "generated anew, and the run goes on a little otherwise than an unbroken one.",
            folder,
        )
    scores = read_json(_scores_file(trainer, folder))
    if scores and hasattr(trainer.reward_model, "load_state_dict"):
        trainer.reward_model.load_state_dict(scores)


def replay_shuffles(sampler: Any, epochs: int) -> None:
    """Draw the orders of the epochs that are over, so that the next one has the order of an unbroken run.

    TRL's sampler draws each epoch's order from where the last one left its generator, and a resumed run starts with a
    fresh one: without this, its next epoch would be the first one again.

    Args:
        sampler: The training set's `trl.trainer.utils.RepeatSampler`; `None` for a streamed one, which has no length:
            transformers finds its place within the first pass only, and starts a later one from its beginning.
        epochs: Whole epochs trained.
    """
    if sampler is None and epochs:
        logger.warning(
            "The training set is streamed and was past its first pass (epoch %d): its prompts come in another order "
            "than in an unbroken run. Leave dataset_streaming out to resume exactly.",
            epochs,
        )
    if sampler is not None and sampler.shuffle:
        for _ in range(epochs):
            torch.randperm(sampler.num_samples, generator=sampler.generator)


def _scores_file(trainer: Any, folder: Path) -> Path:
    return folder / f"reward_model_state_{trainer.accelerator.process_index}.json"


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


class Terminated(SystemExit):
    """The run was told to stop by SIGTERM and has saved a checkpoint; left alone, it ends the process with 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class SaveOnSigterm(TrainerCallback):
    """Save at the end of the current step when SIGTERM comes to any of the processes, and leave training.

    Within the `with` block, in the main thread:

        with SaveOnSigterm(trainer):
            trainer.train()

    Args:
        trainer: Any `transformers.Trainer`.

    Raises:
        Terminated: On every process, when the checkpoint is written.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.received = False  # by this process
        self.stopping = False  # all processes

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._receive)
        self.trainer.add_callback(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self.trainer.remove_callback(self)
        signal.signal(signal.SIGTERM, self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if self.trainer.is_world_process_zero():
            os.write(2, b"\nSIGTERM: saving at the end of this step.\n")  # print may not be called again within itself

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Agree with the other processes on whether to stop."""
        accelerator = self.trainer.accelerator
        self.stopping = self.received
        if accelerator.num_processes > 1:
            own = torch.tensor([self.received], dtype=torch.int, device=accelerator.device)
            self.stopping = bool(accelerator.gather(own).any())
        if self.stopping:
            control.should_save = control.should_training_stop = True
            if args.save_strategy == SaveStrategy.BEST:
                control.should_evaluate = False  # the trainer would take the save back unless it is the best

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave once the checkpoint of all processes is written, without what else comes after training."""
        if self.stopping:
            self.trainer.accelerator.wait_for_everyone()
            raise Terminated
