"""What every recipe does around its own lines: checks first, one folder, plain errors, an end that loses nothing."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from peft import PeftConfig
from transformers import ProgressCallback
from trl import ModelConfig, get_peft_config

from trl_hybrid.errors import hide_known_warnings, plain_errors
from trl_hybrid.hub.saved import trained_logits
from trl_hybrid.recipe.disk import check_room, check_writable
from trl_hybrid.recipe.endings import plain_ends, what_is_left
from trl_hybrid.recipe.folder import RunStart, check_folder, prepare_folder
from trl_hybrid.recipe.loading import loading_arguments
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.parsing import parse_arguments
from trl_hybrid.recipe.preflight import check_push
from trl_hybrid.recipe.say import say
from trl_hybrid.report import StepLines
from trl_hybrid.reward_model.host_memory import keep_all_freed_memory
from trl_hybrid.runs.carried_prompt import save_system_prompt
from trl_hybrid.runs.folder import RUNS, checkpoint_to_resume, goes_on, relative_path
from trl_hybrid.runs.history_writer import RunHistory
from trl_hybrid.runs.settings import settings_of
from trl_hybrid.training.attention import turn_off_cudnn_attention
from trl_hybrid.training.checkpoint import OrderOfTheEpoch
from trl_hybrid.training.leaving import leave_together
from trl_hybrid.training.stop_signals import StopSignals


class RecipeRun:
    """A run of a recipe; its `with` block holds the whole of it.

    Until training begins, what a user can mend is said in one message without a trace. What goes wrong later passes,
    but for interruptions and full disks, which say how to go on.

    Attributes:
        options: What was parsed, by the names under which a run's folder keeps it.
        named: The folder that was asked for, `None` where a new one is made.
        checkpoint: What the run goes on from, `None` where it starts.
        folder: The run's folder, once it is chosen.
        cleared: Whether an earlier run there is set aside before training, by a recipe that writes before it trains.
        started_with: The settings with which training began.
    """

    options: dict[str, Any]
    tasks: TaskArguments
    args: Any
    model: ModelConfig
    named: Path | None
    checkpoint: str | None
    folder: Path
    cleared: bool = False
    started_with: dict[str, Any]

    def __enter__(self) -> Self:
        self.started = time.time()
        turn_off_cudnn_attention()
        hide_known_warnings()
        self._preparation = ExitStack()
        self._preparation.enter_context(plain_errors())
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        return self._preparation.__exit__(*exception)

    def _parse(
        self, defaults: dict[str, Any], text: str | None, short_help: Sequence[str], **classes: type
    ) -> tuple[Any, ...]:
        """Parse the command line into one object a class; the text's first paragraph heads `--help`."""
        summary, _, examples = (text or "").partition("\n\n")
        parsed = parse_arguments(
            list(classes.values()),
            defaults,
            short_help=short_help,
            fit_machine=True,
            description=summary,
            epilog=examples,
        )
        self.options = dict(zip(classes, parsed, strict=True))
        self.tasks, self.args, self.model = (self.options[name] for name in ("tasks", "training", "model"))
        return parsed

    @property
    def settings(self) -> dict[str, Any]:
        """The options as a run's folder keeps them, as they are now."""
        return settings_of(**self.options)

    def _check_folder(self, find: Callable[[str | None, Path, int], str | None] = checkpoint_to_resume) -> None:
        self.named, self.checkpoint = check_folder(self.args, self.tasks.overwrite_output_dir, self.settings, find)
        check_writable(self.named or RUNS)

    def _check_room(self, needed: int) -> None:
        check_room(self.named or RUNS, needed, resumed=self.checkpoint is not None)

    def _take_push(self) -> None:
        """Keep the wish to push to the Hub, which is asked whether it may be, for the run's end.

        TRL would push at each save, unchecked, with the completions, and keep the token in training_args.bin.

        Raises:
            InputError: As `check_push`.
        """
        self.push, self.token = self.args.push_to_hub, self.args.hub_token
        if self.push:
            check_push(self.args)
        self.args.push_to_hub, self.args.hub_token = False, None

    def _open_folder(self, before_training: bool = False) -> None:
        """Choose the folder, and let the trainer's arguments say where it is and how the policy is loaded."""
        self.cleared = before_training
        anew = self.tasks.overwrite_output_dir and not goes_on(self.args.resume_from_checkpoint)
        self.folder = prepare_folder(self.named, self.args, clear=before_training and anew)
        say(f"Everything that this run makes lies in {relative_path(str(self.folder))}.")
        self.args.model_init_kwargs = loading_arguments(self.args, self.model)

    def train(self, trainer: Any) -> None:
        """Train from the start or from the checkpoint; Ctrl-C saves first."""
        if self.args.device.type == "cpu":
            keep_all_freed_memory()
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(self._step_lines())
        trainer.add_callback(OrderOfTheEpoch())
        self.started_with = self.settings
        overwrite = self.tasks.overwrite_output_dir and not self.cleared
        trainer.add_callback(RunStart(self.folder, self.started_with, self.checkpoint, overwrite))
        self._preparation.close()
        stop = StopSignals(trainer)
        self._measure(trainer, stop)
        trainer.add_callback(RunHistory(self.folder))
        with plain_ends(self.folder, trainer, self.way_on), stop:
            trainer.train(resume_from_checkpoint=self.checkpoint)

    def _step_lines(self) -> StepLines:
        return StepLines()

    def _measure(self, trainer: Any, stop: StopSignals) -> None:
        """Add what is measured beside training; nothing here."""

    def way_on(self, folder: Path) -> str:
        """Say how to go on with the run in a folder after an interruption."""
        return what_is_left(folder)

    def save(self, trainer: Any) -> None:
        """Save the model with its system prompt, check that it is the trained one, and show what the run did."""
        main_process = trainer.is_world_process_zero()
        with plain_ends(self.folder, trainer, self.way_on):
            if main_process:
                # It describes the weights that are written over now.
                (self.folder / "summary.json").unlink(missing_ok=True)
            trainer.save_model()
            if main_process:
                self._carry()
            trained = self._trained(trainer)
        leave_together(trainer)
        trainer.accelerator.end_training()  # `Trainer.end` is younger than what vLLM takes of transformers
        if main_process:
            with plain_errors(), plain_ends(self.folder, trainer, self.way_on):
                self._finish(trainer, trained)

    def _carry(self) -> None:
        """Write beside the weights what whoever gets them has to know."""
        save_system_prompt(self.folder, self.tasks.system_prompt)

    def _trained(self, trainer: Any) -> Any:
        """Ask the model in memory what the saved one must say too; every process calls it."""
        return trained_logits(trainer)

    def _finish(self, trainer: Any, trained: Any) -> None:
        raise NotImplementedError


def adapter_config(model: ModelConfig) -> PeftConfig | None:
    """Return the adapter that is asked for: whoever loads it gets the revision of the base model it was trained on."""
    config: Any = get_peft_config(model)
    if config is not None:
        config.revision = model.model_revision
    return config
