"""Writing over an earlier run: refused where more than that run would be lost, and undone where nothing comes of it.

The earlier run is moved into `.previous` in its own folder when the new one begins. It is gone when the new one has a
whole checkpoint or its model, and back where it was if the new one ends before, at once or with the next start.
"""

import atexit
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError
from trl_hybrid.models.files import SAVED_MODEL
from trl_hybrid.runs.carried_prompt import CARRIED
from trl_hybrid.runs.folder import (
    BEING_WRITTEN,
    holds_files,
    newest_whole_checkpoint,
    read_json,
    relative_path,
    weights_are_whole,
)
from trl_hybrid.runs.record import read_record
from trl_hybrid.runs.settings import PLACES, SETTINGS_FILE, texts


logger = logging.getLogger(__name__)

MODEL = (*SAVED_MODEL, "README.md", CARRIED, "summary.json", "curves.png", "report.html", "merged")
"""What a run writes at its end, as patterns."""

SAMPLES_FILE = "samples.jsonl"
"""Answers that are learned from: an interrupted run goes on with them before it has any checkpoint."""

MORE_SAMPLES = "samples-{}.jsonl"
"""Those of the second and later turns, by their number, where several policies or temperatures answer."""

WRITTEN = (
    *MODEL, SETTINGS_FILE, "history.jsonl", "accuracy_before.json", "checkpoint-*", "completions", "abandoned",
    SAMPLES_FILE, MORE_SAMPLES.format("*"), BEING_WRITTEN,
)  # fmt: skip
"""All that a run writes into its folder; what else lies there is the user's."""

READ_TOO = ("samples", "policies", "data_dir", "data_files", "chat_template_path", "reward_model_deepspeed_config")

# The earlier run whole; on its way there or back, when what lies beside it is the same run's; and on its way out.
PREVIOUS, MOVING, DISCARDED = ".previous", ".previous.moving", ".previous.discarded"

HELD: dict[Path, int] = {}
"""Folders in which this process runs, each with its lock's handle: another start sees that this process lives."""


def check_overwrite(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse to write over what no run of a recipe made, and over what the new run reads.

    Args:
        folder: The run's folder; need not exist.
        settings: The new run's: `tasks`, `model` and the others.

    Raises:
        InputError: The folder holds files and no settings of a run; or a model or data that the settings name, also
            through a symbolic link or as an adapter's base, is the folder itself or lies in what would be cleared.
    """
    if not holds_files(folder):
        return
    name = relative_path(str(folder))
    if not _is_of_a_run(folder):
        raise InputError(
            f"Only a run's folder may be written over, and {name!r} holds files but no {SETTINGS_FILE}, which every "
            "run writes. Name another output_dir, or move what lies there away."
        )
    cleared = [folder.resolve(), *(path.resolve() for path in of_a_run(folder))]
    for setting, path in places_read(settings):
        for real in _real_paths(path):
            if real == cleared[0] or any(real.is_relative_to(place) for place in cleared[1:]):
                raise InputError(
                    f"What the run reads may not lie in what overwrite_output_dir clears, but {setting} {str(path)!r} "
                    f"is in the run of {name!r}. Name another output_dir, or copy it to another place first."
                )


def _is_of_a_run(folder: Path) -> bool:
    try:
        record = read_record(folder)
    except InputError:
        return False  # a file of another program
    return bool(record.settings and record.versions)


def places_read(settings: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield the folders and files that a run reads, each with its setting; of a local adapter, its base model too."""
    for setting, value in texts(settings):
        if setting in (*PLACES, *READ_TOO) and Path(value).exists():
            yield setting, Path(value)
            base = read_json(Path(value) / "adapter_config.json").get("base_model_name_or_path")
            if base and Path(base).exists():
                yield f"base_model_name_or_path of {value}", Path(base)


def _real_paths(path: Path) -> list[Path]:
    """Follow symbolic links: a path, and those that lie in a folder."""
    links = [entry.resolve() for entry in path.iterdir() if entry.is_symlink()] if path.is_dir() else []
    return [path.resolve(), *links]


def of_a_run(folder: Path) -> list[Path]:
    """List what a run has written into its folder."""
    return sorted({path for pattern in WRITTEN for path in folder.glob(pattern)})


def set_aside(folder: Path) -> None:
    """Move the earlier run out of the new one's way, and see at this process's end what becomes of it.

    Args:
        folder: The run's folder. Call it in the main process only.

    Raises:
        InputError: Another process is just doing the same.
    """
    hold(folder)
    atexit.register(settle, folder.resolve())
    entries, moving = [path for path in of_a_run(folder) if path.is_file() or holds_files(path)], folder / MOVING
    if (folder / PREVIOUS).is_dir():
        # A cold start that left its answers only: the run before it is still the one to come back.
        for path in entries:
            _remove(path)
    elif entries:
        moving.mkdir()
        for path in entries:
            path.rename(moving / path.name)
        moving.rename(folder / PREVIOUS)


def hold(folder: Path) -> None:
    """Mark the folder as that of a run under way, until this process ends.

    Args:
        folder: The run's folder. Call it in the main process only.

    Raises:
        InputError: It is another process's.
    """
    if folder.resolve() not in HELD:
        HELD[folder.resolve()] = _lock(folder, fcntl.LOCK_EX)


def check_not_under_way(folder: Path) -> None:
    """Refuse a folder in which another process runs: two would write over each other's checkpoints.

    Raises:
        InputError: There is such a process.
    """
    if folder.is_dir() and folder.resolve() not in HELD:
        os.close(_lock(folder, fcntl.LOCK_SH))


def _lock(folder: Path, kind: int) -> int:
    """Lock a folder until the handle that is returned is closed, at the latest by this process's end."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"A run in {relative_path(str(folder))!r} is under way. Wait for it, stop it, or name another output_dir."
        ) from None
    except OSError as error:
        logger.debug("The file system of %s has no locks: %s", folder, error)  # then two runs do not see each other
    return handle


def settle(folder: Path) -> None:
    """Decide about an earlier run that was set aside, if there is one; whatever interrupts this, it can be repeated.

    Args:
        folder: The run's folder. Call it in the main process only.
    """
    previous, moving, discarded = folder / PREVIOUS, folder / MOVING, folder / DISCARDED
    if discarded.is_dir():  # an interrupted call left it
        shutil.rmtree(discarded, ignore_errors=True)
    if previous.is_dir():
        if _has_come_to_something(folder):
            previous.rename(discarded)
        elif (folder / SAMPLES_FILE).exists():
            logger.warning("The run that was in %s before lies in %s until there is a checkpoint.", folder, previous)
        else:
            for path in of_a_run(folder):
                _remove(path)
            previous.rename(moving)
    if moving.is_dir():
        for path in moving.iterdir():
            path.rename(folder / path.name)
        moving.rmdir()
        logger.warning("The run that was in %s before is back: the one over it ended without a checkpoint.", folder)
    if discarded.is_dir():
        shutil.rmtree(discarded, ignore_errors=True)


def let_go(folder: Path) -> None:
    """Remove the run that was set aside, once the one over it has come to something; before that, change nothing.

    While a run lasts, [`settle`] must not judge it: other processes may still be writing, and sharded weights (FSDP,
    or ZeRO-3 that does not gather them) never count as a whole checkpoint.

    Args:
        folder: The run's folder. Call it in the main process only.
    """
    if (folder / PREVIOUS).is_dir() and _has_come_to_something(folder):
        settle(folder)


def _has_come_to_something(folder: Path) -> bool:
    # The trainer saves its arguments last.
    saved = (folder / "training_args.bin").exists() and weights_are_whole(folder)
    return saved or newest_whole_checkpoint(folder) is not None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
