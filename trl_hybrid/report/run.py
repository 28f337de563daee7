"""What a run's folder holds, read: finished, unfinished or killed."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from pyarrow import ArrowInvalid

from trl_hybrid.errors import InputError
from trl_hybrid.report.terminal import last_content
from trl_hybrid.runs.history import HISTORY_FILE, read_history
from trl_hybrid.runs.record import RunRecord, read_record


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportedRun:
    """A run as its page shows it.

    Attributes:
        record: What the recipe wrote of it.
        history: The rows that the trainer logged.
        completions: The completions' tables, one below the other; prompts and completions as text.
        num_completions: How many the run wrote; more than `completions` holds where they were too many.
    """

    record: RunRecord
    history: list[dict[str, Any]]
    completions: pd.DataFrame
    num_completions: int

    @property
    def step(self) -> int:
        """The last step of which something is known."""
        return max([row["step"] for row in self.history] or [self.record.steps or 0])

    @property
    def finished(self) -> bool:
        """Whether training got to its end; a run that went on from there, or from before, is unfinished again."""
        return self.record.steps == self.step


def read_run(folder: Path, max_completions: int) -> ReportedRun:
    """Read a run's folder.

    Args:
        folder: The run's folder.
        max_completions: Of more than so many completions those of every n-th table are read, the last one included.

    Raises:
        InputError: The folder does not exist, or no run has logged anything there.
    """
    record, history = read_record(folder), read_history(folder)
    # A script without the callback that writes the history has completions after what its checkpoint knows.
    until = history[-1]["step"] if history and (folder / HISTORY_FILE).exists() else None
    completions, count = read_completions(folder / "completions", max_completions, until)
    if not (record.settings or record.steps is not None or history or count):
        raise InputError(
            f"There is no run in {str(folder)!r}: it holds neither settings.json, history.jsonl, summary.json, a "
            "whole checkpoint nor completions/. Give the --output_dir of a training run."
        )
    return ReportedRun(record, history, completions, count)


def read_completions(folder: Path, limit: int, until: int | None = None) -> tuple[pd.DataFrame, int]:
    """Read the tables that TRL wrote, one each time it logged.

    A table that was cut off is left out, and so is one that repeats the one before: TRL writes the same completions
    again where it logs within a generation.

    Args:
        folder: The tables' folder.
        limit: Of more than so many rows every n-th table is read, the last one included.
        until: The last step that counts: what lies after it an attempt wrote that the run went back behind.

    Returns:
        All rows, and how many there would be without the limit.
    """
    paths = sorted(folder.glob("completions_*.parquet"))
    counts = {path: _count_rows(path) for path in paths if until is None or int(path.stem.split("_")[1]) <= until}
    files = [path for path, rows in counts.items() if rows]
    total = sum(counts.values())
    stride = -(-total // limit) if total else 1
    tables: list[pd.DataFrame] = []
    for path in files[(len(files) - 1) % stride :: stride] if files else []:
        table = _as_text(pd.read_parquet(path))
        if not tables or not table.drop(columns="step").equals(tables[-1].drop(columns="step")):
            tables.append(table)
        else:
            total -= len(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), total


def _count_rows(path: Path) -> int:
    try:
        return pq.read_metadata(path).num_rows
    except ArrowInvalid:
        logger.warning("The table %s was cut off and is left out.", path)
        return 0


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Put the last message in place of a conversation: the question, or the answer."""
    return table.assign(**{name: table[name].map(last_content) for name in ("prompt", "completion")})
