"""Runs that end early say why and how to go on."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trl_hybrid.errors import InputError, plain_errors
from trl_hybrid.recipe.say import say
from trl_hybrid.reward_model.server import RewardServerError
from trl_hybrid.runs.folder import newest_whole_checkpoint, relative_path, step_of
from trl_hybrid.runs.record import read_record
from trl_hybrid.training.stop_signals import Stopped


WRITE_FAULTS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
}  # fmt: skip


def what_is_left(folder: Path) -> str:
    """Say how to go on with an interrupted run, or how to start it anew."""
    name = relative_path(str(folder))
    newest = newest_whole_checkpoint(folder)
    if newest is None:
        return f"There is no checkpoint yet. To start anew, add: --output_dir {name} --overwrite_output_dir"
    if read_record(folder).steps == step_of(newest):
        return f"Training is done and the model is saved. To look at it: trl-hybrid report {name}"
    return (
        f"To look at it: trl-hybrid report {name}\nTo go on, add: --output_dir {name} --resume_from_checkpoint latest"
    )


@contextmanager
def plain_ends(folder: Path, trainer: Any, way_on: Callable[[Path], str] = what_is_left) -> Iterator[None]:
    """Say why a run ended early and how to go on, in place of a stack trace; other errors than these pass.

    Args:
        folder: The run's folder.
        trainer: Knows the step.
        way_on: Says for a folder how to go on with its run.

    Raises:
        SystemExit: With 130 after Ctrl-C, 143 after SIGTERM, and 2 where a file could not be written, the reward
            model's servers gave no scores, or the input is at fault, as where another process holds the folder.
    """
    try:
        yield
    except (KeyboardInterrupt, Stopped) as stop:
        say(f"\nInterrupted at step {trainer.state.global_step}. {way_on(folder)}")
        raise SystemExit(stop.code if isinstance(stop, Stopped) else 130) from None
    except InputError:
        with plain_errors():
            raise
    except RewardServerError as error:
        with plain_errors():
            raise InputError(f"At step {trainer.state.global_step}: {error}\n{way_on(folder)}") from error
    except (OSError, RuntimeError, SafetensorError) as error:
        fault = write_fault(error)
        if fault is None:
            raise
        with plain_errors():
            told = _cannot_write(folder, trainer.state.global_step, fault)
            raise InputError(f"{told}\n{way_on(folder)}") from error


def write_fault(error: Exception) -> str | None:
    """Return what kept a file from being written; `None` where the error is another one.

    Only `OSError` carries the system's answer: safetensors puts its number into the text, torch leaves it out.

    >>> write_fault(OSError(errno.ENOSPC, "No space left on device", "runs/mine/summary.json"))
    "No space left on device: 'runs/mine/summary.json'"
    >>> write_fault(SafetensorError("I/O error: No space left on device (os error 28)"))
    'No space left on device'
    >>> write_fault(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"))
    'a file of torch was cut off'
    >>> write_fault(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
    """
    if isinstance(error, OSError):
        named = f": {error.filename!r}" if error.filename else ""
        return f"{os.strerror(error.errno)}{named}" if error.errno in WRITE_FAULTS else None
    found = re.search(r"\(os error (\d+)\)", str(error))
    if found and int(found[1]) in WRITE_FAULTS:
        return os.strerror(int(found[1]))
    return "a file of torch was cut off" if "inline_container.cc" in str(error) else None


def _cannot_write(folder: Path, step: int, fault: str) -> str:
    free = shutil.disk_usage(folder).free / 1e9
    return (
        f"What a run makes is written into its folder, but at step {step} a file in {relative_path(str(folder))!r} "
        f"could not be ({fault}; {free:.1f} GB are free there). Earlier checkpoints are as they were. Make room, or "
        "the folder writable."
    )
