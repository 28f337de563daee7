"""Going back to an earlier checkpoint: what the run did after it is kept, and is no longer the run."""

import shutil
from pathlib import Path

from trl_hybrid.runs.folder import GOING_BACK, is_whole, read_json, relative_path, step_of, write_json
from trl_hybrid.runs.overwrite import MODEL
from trl_hybrid.runs.record import read_record


ABANDONED = "abandoned"

COPIED = ("settings.json", "history.jsonl", "accuracy_before.json")


def leave_behind(folder: Path, step: int) -> str | None:
    """Move what a run holds of later steps than the one it goes on from into a folder of its own below it.

    That is `abandoned/after-<step>`, with copies of the settings and the history, so that it can be reported on, and
    gone on from into another folder. An interruption at any point leaves the later steps abandoned: see
    [`finish_going_back`].

    Args:
        folder: The run's folder. Call it in the main process only, once the checkpoint is loaded.
        step: The step that the run goes on from.

    Returns:
        What was moved and where to, in words; `None` where there is nothing later.
    """
    later = later_than(folder, step)
    if not later:
        return None
    place = folder / ABANDONED / f"after-{step}"
    number = 1
    while place.exists():
        number += 1
        place = place.with_name(f"after-{step}-{number}")
    write_json(folder / GOING_BACK, {"step": step, "place": str(place.relative_to(folder))})
    finish_going_back(folder)
    name = relative_path(str(place))
    return f"The run goes on from step {step}. What it did after that is kept in {name}: {_said(later)}."


def finish_going_back(folder: Path) -> None:
    """Move what is left to move, where the run goes back to an earlier checkpoint; it can be repeated.

    Args:
        folder: The run's folder. Call it in the main process only.
    """
    mark = read_json(folder / GOING_BACK)
    if not mark:
        return
    place = folder / mark["place"]
    place.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (folder / name).exists():
            shutil.copy2(folder / name, place / name)
    for path in later_than(folder, mark["step"]):
        target = place / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    (folder / GOING_BACK).unlink()


def later_than(folder: Path, step: int) -> list[Path]:
    """List a run's checkpoints and tables of completions after a step, and the model that it saved after it.

    A checkpoint that was cut off is not listed: it is passed over, and written over when its step comes again.
    """
    checkpoints = [path for path in folder.glob("checkpoint-[0-9]*") if is_whole(path)]
    tables = folder.glob("completions/completions_*.parquet")
    later = sorted((path for path in (*checkpoints, *tables) if step_of(path) > step), key=step_of)
    # Of a model without a summary, whose run was stopped while it wrote that, nobody knows the step.
    saved_at = read_record(folder).steps
    if later if saved_at is None else saved_at > step:
        later += sorted({path for pattern in MODEL for path in folder.glob(pattern)})
    return later


def _said(paths: list[Path]) -> str:
    names = [path.name for path in paths if path.name.startswith("checkpoint-")]
    tables = sum(path.parent.name == "completions" for path in paths)
    return ", ".join(
        [
            *names,
            *([f"{tables} table{'s' if tables > 1 else ''} of completions"] if tables else []),
            *(["the saved model"] if any(path.suffix == ".safetensors" for path in paths) else []),
        ]
    )
