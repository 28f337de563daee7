"""What every recipe does around training: one folder and one voice for all processes, and how the policy is loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainingArguments

from trl_hybrid.errors import InputError
from trl_hybrid.recipe.loading import under_deepspeed
from trl_hybrid.recipe.say import say
from trl_hybrid.runs.changes import changes_since, check_changes, lines_of
from trl_hybrid.runs.folder import (
    check_run_folder,
    checkpoint_to_resume,
    claim_run_folder,
    goes_on,
    holds_files,
)
from trl_hybrid.runs.line import finish_going_back, leave_behind
from trl_hybrid.runs.overwrite import check_not_under_way, check_overwrite, hold, let_go, set_aside, settle
from trl_hybrid.runs.record import read_record
from trl_hybrid.runs.settings import write_settings


# What transformers makes of an output_dir that was not given.
UNNAMED_FOLDER = "trainer_output"


def check_folder(
    args: TrainingArguments,
    overwrite: bool,
    settings: dict[str, Any],
    find: Callable[[str | None, Path, int], str | None] = checkpoint_to_resume,
) -> tuple[Path | None, str | None]:
    """Look at the folder that was named, if any, and for the checkpoint to go on from where one was asked for.

    What an interrupted start left half moved there is put in order first; nothing else is changed. Settings that
    differ from those of the run that goes on are said.

    Args:
        args: Their `output_dir`, `resume_from_checkpoint` and `max_steps` are read.
        overwrite: What lies in the folder may be overwritten.
        settings: Those asked for now; see [`~trl_hybrid.runs.settings.settings_of`].
        find: Finds the checkpoint; called as `checkpoint_to_resume`.

    Returns:
        The folder and the checkpoint, `None` where there is none; see [`prepare_folder`].

    Raises:
        InputError: As for `check_run_folder`, `check_overwrite`, `checkpoint_to_resume` and `check_changes`; or
            output_dir holds another run than the checkpoint's.
    """
    named = None if args.output_dir == UNNAMED_FOLDER else args.output_dir
    resume = goes_on(args.resume_from_checkpoint)
    if named:
        check_not_under_way(Path(named))
    if named and PartialState().is_main_process:
        settle(Path(named))
        finish_going_back(Path(named))
    PartialState().wait_for_everyone()
    folder = check_run_folder(named, resume, overwrite)
    if folder is None:
        return None, None
    if not resume:
        if overwrite:
            check_overwrite(folder, settings)
        return folder, None
    checkpoint = find(args.resume_from_checkpoint, folder, args.max_steps)
    if checkpoint is not None:
        _check_resumed(args, folder, Path(checkpoint), settings)
    return folder, checkpoint


def _check_resumed(args: Any, folder: Path, checkpoint: Path, settings: dict[str, Any]) -> None:
    if checkpoint.parent.resolve() != folder.resolve() and holds_files(folder):
        raise InputError(
            f"output_dir must be the folder of resume_from_checkpoint or an empty one, got {str(folder)!r} for "
            f"{str(checkpoint)!r}: two runs would be mixed. Give --output_dir {checkpoint.parent}, or a new folder."
        )
    launch = {"processes": PartialState().num_processes, "under_deepspeed": under_deepspeed(args)}
    changes = changes_since(checkpoint, {**settings, "launch": launch})
    check_changes(checkpoint, changes)
    if changes:
        lines = "\n".join(lines_of(changes, changes))
        say(f"The run goes on with other settings than before (before -> now):\n{lines}")


def prepare_folder(folder: Path | None, args: TrainingArguments, clear: bool = False) -> Path:
    """Choose the run's folder in the main process; all processes write into the same one.

    Args:
        folder: The folder that was named; `None` for a new one below `runs`, after `args.run_name`.
        args: Their `output_dir` becomes the folder.
        clear: Whether to set an earlier run there aside at once, for a recipe that writes before it trains; a
            recipe that only trains leaves that to [`RunStart`].

    Returns:
        The folder, the same in every process.
    """
    # Every process has to have looked at the folder before one of them changes it.
    PartialState().wait_for_everyone()
    choice = [folder]
    if PartialState().is_main_process:
        choice = [folder or claim_run_folder(args.run_name or "run")]
        if clear and folder:
            folder.mkdir(parents=True, exist_ok=True)
            set_aside(folder)
    chosen = broadcast_object_list(choice)[0]
    assert chosen is not None
    args.output_dir = str(chosen)
    return chosen


class RunStart(TrainerCallback):
    """Change the run's folder when training really begins and not before: what cannot start costs nothing.

    The trainer is built then and the checkpoint loaded. Of all callbacks that write, it must come first.

    Args:
        folder: The run's folder.
        settings: What `settings.json` is to hold.
        checkpoint: The one that the run goes on from.
        overwrite: An earlier run in the folder is set aside, until this one has a checkpoint.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], checkpoint: str | None, overwrite: bool) -> None:
        self.folder, self.settings, self.checkpoint, self.overwrite = folder, settings, checkpoint, overwrite
        # Here, as the main process will write over the settings that all of them compare with.
        self.changes = changes_since(Path(checkpoint), settings) if checkpoint else {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set aside what is not the run, and write its settings."""
        if "learning_rate" in self.changes:
            set_learning_rate(kwargs["optimizer"], kwargs["lr_scheduler"], self.changes["learning_rate"][1])
        if not state.is_world_process_zero:
            return
        hold(self.folder)
        if self.checkpoint:
            left = leave_behind(self.folder, state.global_step)
            if left:
                say(f"\n{left}")
        elif self.overwrite:
            set_aside(self.folder)
        if getattr(args, "log_completions", False):
            (self.folder / "completions").mkdir(parents=True, exist_ok=True)  # TRL makes it once, with the trainer
        write_settings(self.folder, self.settings, self._all_changes(state.global_step))

    def _all_changes(self, step: int) -> list[dict[str, Any]]:
        earlier = read_record(self.folder).changes if self.checkpoint else []
        now = [{"step": step, "settings": self.changes}] if self.changes else []
        return [change for change in earlier if change["step"] < step] + now

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let go of the run that was written over."""
        if state.is_world_process_zero:
            let_go(self.folder)


def set_learning_rate(optimizer: Any, lr_scheduler: Any, learning_rate: float) -> None:
    """Make a resumed optimizer follow another learning rate than the one that it and its schedule were saved with.

    Those that started anew, as after a save without optimizer, follow it already and stay as they are. So do groups of
    parameters with a rate of their own, as a reward model's score head.

    Args:
        optimizer: Changed in place.
        lr_scheduler: Its schedule, with `base_lrs`; changed in place.
        learning_rate: The schedule's highest.
    """
    schedule = getattr(lr_scheduler, "scheduler", lr_scheduler)  # accelerate wraps it
    shared = schedule.base_lrs[0]
    if not shared:
        return
    factors = [learning_rate / shared if rate == shared else 1.0 for rate in schedule.base_lrs]
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        group["lr"] *= factor
        group["initial_lr"] *= factor
    schedule.base_lrs = [rate * factor for rate, factor in zip(schedule.base_lrs, factors, strict=True)]
    # What is logged of the first step.
    schedule._last_lr = [rate * factor for rate, factor in zip(schedule.get_last_lr(), factors, strict=True)]
