"""Is there room for what a run writes? Asked before it starts: a full disk costs the steps since the last save."""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError
from trl_hybrid.memory.size import size
from trl_hybrid.memory.training import Policy, moment_bytes


BESIDE_BYTES = 50 * 10**6
"""Assumed for the tokenizers, completions, report and pictures of a run."""


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to, or could not be made.

    Args:
        folder: The run's; need not exist.

    Raises:
        InputError: Writing there fails.
    """
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(
            f"The run's folder {str(folder)!r} must be one that can be written to; {str(place)!r} is not "
            f"({error.strerror}). Name another by --output_dir."
        ) from error


def check_room(folder: Path, needed: int, resumed: bool = False) -> None:
    """Refuse a folder whose disk is too full for the run.

    Args:
        folder: The run's; need not exist.
        needed: Bytes that the run keeps; see [`run_bytes`].
        resumed: What lies in the folder is this run's, and counts as kept already.

    Raises:
        InputError: Too little is free.
    """
    if resumed:
        needed -= sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise InputError(
            f"The run will write about {size(needed)} of checkpoints and weights to {str(folder)!r}, and {size(free)} "
            "are free there. Make room, name another place by --output_dir, or keep less: a lower save_total_limit, "
            "save_only_model (without going on after an interruption), use_peft."
        )


def run_bytes(policy: Policy, args: Any, steps: int | None = None) -> int:
    """Estimate what a run writes and keeps: the trained model, and as many checkpoints as are kept.

    Args:
        policy: What is trained.
        args: Their `save_strategy`, `save_steps`, `save_total_limit`, `save_only_model`, `optim` and `sync_ref_model`.
        steps: Of the whole run, `None` where nobody knows yet.

    Returns:
        Bytes. A new checkpoint is written before the oldest is removed.
    """
    weights = policy.trained_bytes if policy.adapters else policy.weight_bytes
    optimizer = str(getattr(args.optim, "value", args.optim))
    checkpoint = weights + (0 if args.save_only_model else moment_bytes(policy, optimizer))
    if getattr(args, "sync_ref_model", False):  # the reference model moves and travels along
        checkpoint += policy.weight_bytes
    return BESIDE_BYTES + weights + checkpoint * _kept(args, steps)


def _kept(args: Any, steps: int | None) -> int:
    """Count the checkpoints that lie there at once; the last step is saved too."""
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "no":
        return 0
    saves = math.ceil(args.num_train_epochs)
    if strategy == "steps" and steps is None:
        saves = args.save_total_limit or 1
    elif strategy == "steps" and steps is not None:
        every = args.save_steps if args.save_steps >= 1 else args.save_steps * steps
        saves = math.ceil(steps / every)
    return saves if args.save_total_limit is None else min(saves, args.save_total_limit + 1)


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
