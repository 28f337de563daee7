"""The rows that a run logs, on lines of their own, so that an unfinished or killed one can be looked at."""

import json
import math
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError
from trl_hybrid.runs.folder import newest_whole_checkpoint, read_json


HISTORY_FILE = "history.jsonl"


def history_line(row: dict[str, Any]) -> str:
    r"""Put a row on a line of strict JSON, where a number that is not finite is null.

    >>> history_line({"step": 3, "entropy": 0.5, "grad_norm": float("nan")})
    '{"step": 3, "entropy": 0.5, "grad_norm": null}\n'
    """
    return json.dumps(_finite(row)) + "\n"


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the rows that a run logged: from `history.jsonl`, otherwise from its newest checkpoint.

    A last line that was cut off, because the run was killed while it wrote, is left out.

    Args:
        folder: The run's folder.

    Returns:
        Dictionaries with `step` and metrics, oldest first; none where nothing was logged.

    Raises:
        InputError: Another line than the last one is no JSON object.
    """
    path = folder / HISTORY_FILE
    if not path.exists():
        checkpoint = newest_whole_checkpoint(folder)
        rows = read_json(checkpoint / "trainer_state.json")["log_history"] if checkpoint else []
        return [_finite(row) for row in rows]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise InputError(f"Line {number} of {str(path)!r} is no JSON: {error}. Remove it.") from error
    return rows
