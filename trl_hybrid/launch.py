"""What every recipe does around training: one folder and one voice for all processes, and how the policy is loaded."""

from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments
from trl import ModelConfig

from trl_hybrid.errors import InputError
from trl_hybrid.run_folder import (
    check_run_folder,
    checkpoint_to_resume,
    claim_run_folder,
    clear_run_folder,
    newest_whole_checkpoint,
    relative_path,
)


# What transformers makes of an output_dir that was not given.
UNNAMED_FOLDER = "trainer_output"


def named_folder(args: TrainingArguments, overwrite: bool) -> Path | None:
    """Look at the folder that was named, if any; see `check_run_folder`."""
    named = None if args.output_dir == UNNAMED_FOLDER else args.output_dir
    return check_run_folder(named, args.resume_from_checkpoint is not None, overwrite)


def check_folder(args: TrainingArguments, overwrite: bool) -> tuple[Path | None, str | None]:
    """Look at the folder that was named, if any, and for the checkpoint to go on from where one was asked for.

    Args:
        args: Their `output_dir`, `resume_from_checkpoint` and `max_steps` are read.
        overwrite: What lies in the folder may be overwritten.

    Returns:
        The folder and the checkpoint, `None` where there is none; see [`prepare_folder`].

    Raises:
        InputError: As for `check_run_folder` and `checkpoint_to_resume`.
    """
    folder = named_folder(args, overwrite)
    return folder, checkpoint_to_resume(args.resume_from_checkpoint, folder, args.max_steps) if folder else None


def prepare_folder(folder: Path | None, args: TrainingArguments, clear: bool, also: tuple[str, ...] = ()) -> Path:
    """Make or clear the run's folder, in the main process; all processes write into the same one.

    Args:
        folder: The folder that was named; `None` for a new one below `runs`, after `args.run_name`.
        args: Their `output_dir` becomes the folder.
        clear: Whether to remove what an earlier run left there.
        also: Files to remove then beside those of every run.

    Returns:
        The folder, the same in every process.
    """
    # Every process has to have looked at the folder before one of them changes it.
    PartialState().wait_for_everyone()
    choice = [folder]
    if PartialState().is_main_process:
        choice = [folder or claim_run_folder(args.run_name or "run")]
        if clear and folder:
            clear_run_folder(folder)
            for name in also:
                (folder / name).unlink(missing_ok=True)
    chosen = broadcast_object_list(choice)[0]
    assert chosen is not None
    args.output_dir = str(chosen)
    return chosen


def loading_arguments(args: Any, model: ModelConfig) -> dict[str, Any]:
    """Say how the policy is loaded: TRL's model options, and over them the trainer's own `model_init_kwargs`.

    Raises:
        InputError: The latter turn safetensors off.
    """
    own = args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}
    if not own.get("use_safetensors", True):
        raise InputError(
            "Only safetensors weights are read, as others may hold code, but model_init_kwargs has use_safetensors "
            f"{own['use_safetensors']!r}. Leave it out, and convert the weights: load and save them by transformers."
        )
    return {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        "use_safetensors": True,
        **own,
    }


def what_is_left(folder: Path) -> str:
    """Say how to go on with an interrupted run, or how to start it anew."""
    name = relative_path(str(folder))
    if newest_whole_checkpoint(folder) is None:
        return f"There is no checkpoint yet. To start anew, add: --output_dir {name} --overwrite_output_dir"
    return (
        f"To look at it: trl-hybrid report {name}\nTo go on, add: --output_dir {name} --resume_from_checkpoint latest"
    )


def say(text: str) -> None:
    """Print once, whatever the number of processes."""
    if PartialState().is_main_process:
        print(text, flush=True)  # noqa: T201 - a recipe's own voice
