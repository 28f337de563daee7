"""The file that `trl-hybrid score` appends to, and the check that what it holds may be gone on from."""

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError


OWN_NAMES = ("score", "nonfinite", "reward_model")
"""Fields that the command adds to a row."""


def format_line(row: dict[str, Any], score: float, reward_model: dict[str, Any]) -> bytes:
    r"""Return a row with its score as one line of JSON.

    JSON has no NaN and no infinity: such a score is null, and `nonfinite` holds what the model gave.

    Args:
        row: The input row, without a field of `OWN_NAMES`.
        score: Raw score.
        reward_model: What made the score, as JSON's types.

    Example:
        >>> format_line({"id": 1}, 0.5, {"name_or_path": "rm"})
        b'{"id": 1, "score": 0.5, "reward_model": {"name_or_path": "rm"}}\n'
        >>> format_line({"id": 1}, float("-inf"), {"name_or_path": "rm"})
        b'{"id": 1, "score": null, "nonfinite": "-inf", "reward_model": {"name_or_path": "rm"}}\n'
    """
    own: dict[str, Any] = {"score": score} if isfinite(score) else {"score": None, "nonfinite": str(score)}
    return (json.dumps({**row, **own, "reward_model": reward_model}, ensure_ascii=False) + "\n").encode()


def read_scores(path: Path, rows: Sequence[dict[str, Any]], reward_model: dict[str, Any]) -> tuple[list[float], int]:
    """Read the scores of an earlier run that stopped, once they are known to belong to these rows and this model.

    Args:
        path: A file of lines by `format_line`. The last one may be torn.
        rows: The rows to score. Those of the file must be the first ones of them, field by field.
        reward_model: What the file's scores must have been made by.

    Returns:
        The scores, NaN and infinities included, and the number of bytes of the whole lines that hold them.

    Raises:
        InputError: The file holds other rows, or scores of another reward model.
    """
    scores: list[float] = []
    end = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number > len(rows):
                raise InputError(
                    f"Row {number} of {str(path)!r} is none of the {len(rows)} rows to score. {_way_out(path)}"
                )
            start = _start_of_line(rows[number - 1])
            whole = line.endswith(b"\n")
            if not (line.startswith(start) or (not whole and start.startswith(line))):
                raise InputError(
                    f"Row {number} of {str(path)!r} must be row {number} of --completions with its score, but "
                    f"{_difference(line, rows[number - 1])}. {_way_out(path)}"
                )
            if whole:
                scores.append(_score(line, number, path, reward_model))
                end += len(line)
    return scores, end


def _start_of_line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False)[:-1] + ', "score": ').encode()


def _score(line: bytes, number: int, path: Path, reward_model: dict[str, Any]) -> float:
    try:
        stored = json.loads(line)
        score = stored["score"] if stored["score"] is not None else stored["nonfinite"]
        made_by, value = stored["reward_model"], float(score)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"Row {number} of {str(path)!r} is not as `trl-hybrid score` writes it: {line[-80:]!r}. {_way_out(path)}"
        ) from error
    if made_by != reward_model:
        raise InputError(
            f"The scores of one file must be of one reward model, but row {number} of {str(path)!r} is scored by "
            f"{json.dumps(made_by)} and this run would go on by {json.dumps(reward_model)}. {_way_out(path)}"
        )
    return value


def _difference(line: bytes, row: dict[str, Any]) -> str:
    """Say what a foreign line has in place of the row."""
    try:
        stored = json.loads(line)
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        return f"it is {line[:80]!r}"
    if "score" not in stored:
        return "it has no score"
    differing = [name for name in row if name not in stored or stored[name] != row[name]]
    return f"its {', '.join(f'`{name}`' for name in differing)} differs" if differing else "it is written otherwise"


def _way_out(path: Path) -> str:
    return f"Nothing was written. Name another --output, or write {path.name!r} anew by --overwrite."
