"""One folder a run: choosing it, resuming in it, and its summary."""

import itertools
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from trl_hybrid.errors import InputError


logger = logging.getLogger(__name__)

RUNS = Path("runs")

SUMMARY_FILE = "summary.json"

GOING_BACK = ".going_back.json"
"""While it lies in a run's folder, what it holds of later steps than this file's `step` is left behind."""

BEING_WRITTEN = ".being_written"
"""Where a model is written until it is whole; see [`being_written`]."""

JUDGES = "hybrid_judges"
"""Under which a checkpoint's `trainer_state.json` holds the judges' state, among those of callbacks."""

PACKAGES = ("trl-hybrid", "trl", "transformers", "accelerate", "datasets", "peft", "math-verify", "torch")


def check_run_folder(output_dir: str | None, resume: bool = False, overwrite: bool = False) -> Path | None:
    """Look at the folder that the user named, so that no earlier run is overwritten unasked.

    Args:
        output_dir: The folder that the user named; `None` for a new one, see [`claim_run_folder`].
        resume: An earlier run in `output_dir` goes on.
        overwrite: What lies in `output_dir` may be overwritten.

    Returns:
        The folder, not made here; `None` where none was named.

    Raises:
        InputError: `output_dir` holds files, and neither `resume` nor `overwrite` was asked for; or it was asked to
            resume without saying where.
    """
    if output_dir is None:
        if resume:
            raise InputError("To resume, name the run's folder too: --output_dir runs/<name>.")
        return None
    folder = Path(output_dir)
    if folder.is_file():
        raise InputError(f"output_dir must be a folder, got the file {output_dir!r}.")
    if not resume and not overwrite and holds_files(folder):
        raise InputError(
            f"output_dir {output_dir!r} is not empty. Go on with that run by --resume_from_checkpoint latest, write "
            "over it by --overwrite_output_dir, or name another folder."
        )
    return folder


def claim_run_folder(name: str) -> Path:
    """Make a new folder for a run: `runs/<name>`, or `runs/<name>-2` and so on where that is taken.

    Making the folder is the claim, so that two runs that start at once get one each.
    """
    for number in itertools.count(1):
        folder = RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")


def holds_files(folder: Path) -> bool:
    """Say whether there is any file in a folder or below it; a trainer that was built and no more leaves folders."""
    return any(not path.is_dir() for path in folder.rglob("*"))


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that was written to its end.

    Where the run went back to an earlier checkpoint, those that it left behind do not count.

    The trainer's state is written last, weights carry their own length, and torch's files (the optimizer, each
    process's share of DeepSpeed's state) are archives with their index at the end, so a save that was cut off shows.

    Args:
        folder: The run's folder.

    Returns:
        The checkpoint's folder, or `None` where there is none.
    """
    left_behind_after = read_json(folder / GOING_BACK).get("step")
    for checkpoint in reversed(checkpoints(folder)):
        if left_behind_after is not None and step_of(checkpoint) > left_behind_after:
            continue
        if is_whole(checkpoint):
            return checkpoint
        logger.warning("The checkpoint %s is not whole and is passed over.", checkpoint)
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, whole or not, oldest first."""
    found = (path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name))
    return sorted((path for path in found if path.is_dir()), key=step_of)


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint or of a table of completions.

    >>> step_of(Path("runs/a/checkpoint-20")), step_of(Path("completions/completions_00007.parquet"))
    (20, 7)
    """
    return int(re.split("[-_.]", path.name)[1])


def is_whole(checkpoint: Path) -> bool:
    """Say whether a checkpoint was written to its end; see [`newest_whole_checkpoint`]."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return weights_are_whole(checkpoint) and all(map(zipfile.is_zipfile, checkpoint.rglob("*.pt*")))  # .pt and .pth


def judges_state(checkpoint: Path) -> dict[str, Any]:
    """Read what a checkpoint knows of the judges: `judgement` and `generation_step`; empty where it has had none."""
    return read_json(checkpoint / "trainer_state.json").get("stateful_callbacks", {}).get(JUDGES, {})


def weights_are_whole(folder: Path) -> bool:
    """Say whether there are weights in a folder and each of their files has its whole length."""
    weights = list(folder.glob("*.safetensors"))
    try:
        for file in weights:
            with safe_open(file, framework="numpy"):
                pass
    except (OSError, SafetensorError):
        return False
    return bool(weights)


def goes_on(resume: str | None) -> bool:
    """Say whether the user's `resume_from_checkpoint` asks for an earlier run to go on."""
    return resume is not None and resume.lower() != "false"


def checkpoint_to_resume(resume: str | None, folder: Path, max_steps: int = -1) -> str | None:
    """Turn the user's `resume_from_checkpoint` into a checkpoint's path.

    Args:
        resume: `None` or "false" to start anew, "latest" or "true" for the newest whole checkpoint, or a path.
        folder: The run's folder.
        max_steps: The run's bound; 0 or less for none.

    Returns:
        A checkpoint's folder, or `None` to start anew.

    Raises:
        InputError: There is no whole checkpoint where one was asked for, or it is past `max_steps`, or it has reached
            it and the run's summary is written. Without summary the run goes on to be measured and saved.
    """
    if resume is None or not goes_on(resume):
        return None
    if resume.lower() in ("latest", "true"):
        found = newest_whole_checkpoint(folder) if folder.is_dir() else None
        if found is None:
            anew = " and add --overwrite_output_dir" if folder.is_dir() else ""
            raise InputError(
                f"There is no whole checkpoint to resume from in {str(folder)!r}"
                f"{'' if folder.is_dir() else ', which is no folder'}. Check the name; to start anew, leave "
                f"resume_from_checkpoint out{anew}."
            )
        resume = str(found)
    elif not is_whole(Path(resume)):
        raise InputError(
            f"resume_from_checkpoint {resume!r} is no whole checkpoint. Give 'latest', or one of: "
            f"{', '.join(map(str, checkpoints(folder))) if folder.is_dir() else 'none there'}."
        )
    step = read_json(Path(resume) / "trainer_state.json")["global_step"]
    finished = read_json(folder / SUMMARY_FILE).get("steps") == step
    if 0 < max_steps < step or (max_steps == step and finished):
        raise InputError(f"The run has reached step {step} and max_steps is {max_steps}. Raise max_steps to go on.")
    return resume


def relative_path(name: str) -> str:
    """Say where something lies, relative to the working folder where it lies below it; ids stay as they are."""
    path = Path(name)
    if not path.exists():
        return name
    return str(path.resolve().relative_to(Path.cwd())) if path.resolve().is_relative_to(Path.cwd()) else str(path)


def package_versions() -> dict[str, str]:
    """Name the installed version of each package that a result depends on."""
    return {package: version(package) for package in PACKAGES}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where the file does not exist.

    Raises:
        InputError: The file holds none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{str(path)!r} must hold a JSON object, but is none: {error}. Mend or remove it.") from error
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} must hold a JSON object, got {content!r}. Mend or remove it.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object by [`write_text`]."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def being_written(folder: Path) -> Iterator[Path]:
    """Lend an empty folder below another, on the same disk, whose content can take its place once it is whole.

    What is still in it afterwards, and what a killed process left, is removed.
    """
    part = folder / BEING_WRITTEN
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, content: str) -> None:
    """Write a file in one step, so that an interruption leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(content, encoding="utf-8")
    part.replace(path)
