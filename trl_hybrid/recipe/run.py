"""One run of a recipe, as a `with` block: its settings, its folder, and how it ends."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

from transformers import ProgressCallback
from trl import ModelConfig, get_peft_config

from trl_hybrid.errors import hide_known_warnings, plain_errors
from trl_hybrid.hub.saved import Trained, trained_logits
from trl_hybrid.recipe.disk import check_writable
from trl_hybrid.recipe.endings import plain_ends, what_is_left
from trl_hybrid.recipe.folder import RunStart, check_folder, prepare_folder
from trl_hybrid.recipe.loading import loading_arguments
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.report.terminal import StepLines
from trl_hybrid.runs.carried_prompt import save_system_prompt
from trl_hybrid.runs.folder import RUNS, checkpoint_to_resume
from trl_hybrid.runs.history import RunHistory
from trl_hybrid.runs.settings import settings_of
from trl_hybrid.training.attention import turn_off_cudnn_attention
from trl_hybrid.training.stop_signals import StopSignals


class Run:
    """What every recipe does around training.

    Entering it reads the settings and checks what is cheap to check. Up to training, what the user can mend ends the
    program with a message and status 2; a run that ends early says why and how to go on.

    Args:
        defaults: The recipe's own values in place of the dataclasses'.
        description: For `--help`.
        epilog: Examples, for `--help`.

    Attributes:
        tasks: Which problems.
        args: The trainer's settings; `output_dir` is the run's folder once that is chosen.
        model: The policy's.
        checkpoint: What the run goes on from; `None` for a new one.
        folder: The run's.
        recorded: The settings that the run writes into its folder.
    """

    GROUPS: ClassVar[dict[str, str]] = {}
    """Groups of the run's settings, each with the attribute that holds it."""

    way_on: Callable[[Path], str] = staticmethod(what_is_left)
    tasks: TaskArguments
    args: Any
    model: ModelConfig
    checkpoint: str | None
    folder: Path
    recorded: dict[str, Any]

    def __init__(self, defaults: dict[str, Any], description: str, epilog: str) -> None:
        self.defaults, self.help = defaults, {"description": description, "epilog": epilog}
        self.started = time.time()
        self.trains = False

    def __enter__(self) -> Self:
        turn_off_cudnn_attention()
        hide_known_warnings()
        with plain_errors():
            self._read_settings()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and not self.trains:
            with plain_errors():
                raise error

    def _read_settings(self) -> None:
        """Parse the command line, and check what is cheap to check."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the run's settings, as its folder keeps them."""
        return settings_of(**{group: getattr(self, name) for group, name in self.GROUPS.items()})

    @property
    def place(self) -> Path:
        """The folder that was named, or the one in which a new one will be made."""
        return self._named or RUNS

    @property
    def peft_config(self) -> Any:
        """The adapter to train; `None` to train all weights. Whoever loads it gets the base that it was trained on."""
        config: Any = get_peft_config(self.model)
        if config is not None:
            config.revision = self.model.model_revision
        return config

    def _find_folder(self, find: Callable[[str | None, Path, int], str | None] = checkpoint_to_resume) -> None:
        overwrite = self.tasks.overwrite_output_dir
        self._named, self.checkpoint = check_folder(self.args, overwrite, self.settings(), find)
        check_writable(self.place)

    def _make_folder(self, clear: bool = False) -> None:
        self.folder = prepare_folder(self._named, self.args, clear)
        self.args.model_init_kwargs = loading_arguments(self.args, self.model)

    def _train(self, trainer: Any, lines: StepLines, overwrite: bool, stop: StopSignals, *callbacks: Any) -> None:
        """Train, with a line a step, the history and the signals that save first."""
        self.recorded = self.settings()
        start = RunStart(self.folder, self.recorded, self.checkpoint, overwrite)
        trainer.remove_callback(ProgressCallback)
        for callback in (lines, start, *callbacks, RunHistory(self.folder)):
            trainer.add_callback(callback)
        self.trains = True
        with plain_ends(self.folder, trainer, self.way_on), stop:
            trainer.train(resume_from_checkpoint=self.checkpoint)

    def _save_model(self, trainer: Any) -> Trained:
        """Save the model with the prompt that it was trained with, and return what it says, to compare."""
        with plain_ends(self.folder, trainer, self.way_on):
            if trainer.is_world_process_zero():
                (self.folder / "summary.json").unlink(missing_ok=True)  # it describes weights that are written over
            trainer.save_model()
            if trainer.is_world_process_zero():
                save_system_prompt(self.folder, self.tasks.system_prompt)
            return trained_logits(trainer)
