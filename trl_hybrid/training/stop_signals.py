"""Ctrl-C and SIGTERM save first."""

import os
import signal
from types import FrameType
from typing import Any, Self

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy


NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(SystemExit):
    """The run was told to stop and has saved a checkpoint; left alone, it ends the process with 128 + the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class StopSignals(TrainerCallback):
    """Save at the end of the current step when Ctrl-C or SIGTERM comes to any of the processes, and leave training.

    A measurement of held-out accuracy is broken off at once. A second Ctrl-C raises `KeyboardInterrupt` on the spot.
    Within the `with` block, in the main thread, after all other callbacks are added:

        with StopSignals(trainer):
            trainer.train()

    Args:
        trainer: Any `transformers.Trainer`.

    Attributes:
        received: The signal that came to this process, 0 for none.
        agreed: The signal that came to any process, as of the last time that they asked each other.

    Raises:
        Stopped: On every process, when the checkpoint is written; before the first step there is nothing to write.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.received = self.agreed = 0
        self.saved_step = 0

    def __enter__(self) -> Self:
        # What ignores Ctrl-C, as a script's background job, goes on ignoring it.
        heard = [number for number in NAMES if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in heard}
        self.trainer.add_callback(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self.trainer.remove_callback(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        if self.trainer.is_world_process_zero():
            # A launcher of one process dies of the terminal's Ctrl-C, and the next one does not come here.
            told = (
                f"\n{NAMES[number]}: the run saves at the end of this step and stops, even where a launcher dies with "
                f"a trace. To stop at once: Ctrl-C again, or kill -INT {os.getpid()}\n"
            )
            os.write(2, told.encode())  # print may not be called again within itself

    def ask(self) -> bool:
        """Ask whether any process was told to stop; all of them must ask together."""
        accelerator = self.trainer.accelerator
        self.agreed = self.received
        if accelerator.num_processes > 1:
            own = torch.tensor([self.received], dtype=torch.int, device=accelerator.device)
            self.agreed = int(accelerator.gather(own).max())
        return self.agreed > 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave where nothing is trained yet."""
        self.saved_step = state.global_step  # the checkpoint's that the run goes on from
        if self.ask():
            raise Stopped(self.agreed)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Have a checkpoint saved where any process was told to stop."""
        if self.ask():
            control.should_save = control.should_training_stop = True
            if args.save_strategy == SaveStrategy.BEST:
                control.should_evaluate = False  # the trainer would take the save back unless it is the best

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave once the checkpoint of all processes is written, without what else comes after training."""
        self.saved_step = state.global_step
        if self.agreed:
            self._leave()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave after the last step, too, with a checkpoint of it: a run that goes on from there is finished."""
        if not self.ask():
            return
        # With the best model loaded, the weights are not the last step's.
        if self.saved_step != state.global_step and not args.load_best_model_at_end:
            self.trainer._save_checkpoint(self.trainer.model, None)
        self._leave()

    def _leave(self) -> None:
        self.trainer.accelerator.wait_for_everyone()
        raise Stopped(self.agreed)
