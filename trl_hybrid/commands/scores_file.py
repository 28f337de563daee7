"""The file that `trl-hybrid score` appends to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError
from trl_hybrid.evaluation.rows_file import RowsFile


OWN_NAMES = ("score", "nonfinite", "reward_model")
"""Fields that the command adds to a row."""


def scores_file(path: Path, rows: Sequence[dict[str, Any]], reward_model: dict[str, Any]) -> RowsFile:
    """Describe the file of the scores that a reward model gives to rows."""
    way_out = f"Nothing was written. Name another --output, or write {path.name!r} anew by --overwrite."
    return RowsFile(path, rows, first="score", maker="reward_model", made_by=reward_model, way_out=way_out)


def read_scores(file: RowsFile) -> tuple[list[float], int]:
    """Read the scores of an earlier run that stopped.

    Returns:
        The scores, NaN and infinities included, and the number of bytes of the whole lines that hold them.

    Raises:
        InputError: The file holds other rows, or scores of another reward model.
    """
    rows, end = file.read()
    return [_score(row, number, file) for number, row in enumerate(rows, start=1)], end


def _score(row: dict[str, Any], number: int, file: RowsFile) -> float:
    try:
        return float(row["score"] if row["score"] is not None else row["nonfinite"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"Row {number} of {str(file.path)!r} is not as `trl-hybrid score` writes it: its score is "
            f"{row.get('score')!r}. {file.way_out}"
        ) from error
