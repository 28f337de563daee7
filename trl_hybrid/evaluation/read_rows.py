"""The JSONL files of completions that the commands read."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from trl_hybrid.data.text_rows import decoded_lines
from trl_hybrid.errors import InputError


def read_rows(path: Path, needed: Sequence[str], option: str = "--completions") -> list[dict[str, Any]]:
    """Read one JSON object a line; empty lines are passed over.

    Args:
        path: The file.
        needed: Fields that every row must have.
        option: What named the file, for messages.

    Raises:
        InputError: There is no such file, it is not UTF-8, it holds no rows, or a line is not an object with the
            fields, holds half a character, its `completion` is neither text nor messages, or its `truncated` neither
            true nor false.
    """
    if path.is_dir():
        raise InputError(f"{option} must be a file, {str(path)!r} is a folder. Name a JSONL file in it.")
    if not path.is_file():
        raise InputError(f"The file {str(path)!r} does not exist (looked in {Path.cwd()}). Check {option}.")
    # Not `splitlines`, which breaks a line at characters such as U+2028 that JSON's strings may hold.
    with closing(decoded_lines(path)) as lines:
        numbered = enumerate(lines, start=1)
        rows = [_parse(line, f"Line {number} of {str(path)!r}", needed) for number, line in numbered if line.strip()]
    if not rows:
        raise InputError(f"The file {str(path)!r} holds no rows.")
    return rows


def _parse(line: str, place: str, needed: Sequence[str]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place} is not JSON: {error}") from error
    if not isinstance(row, dict) or not all(name in row for name in needed):
        names = " and ".join(f"`{name}`" for name in needed)
        raise InputError(f"{place} must be a JSON object with {names}, got {line.strip()[:80]}")
    _check_encodable(row, place)
    if not isinstance(row.get("completion", ""), str | list):
        shown = json.dumps(row["completion"])[:60]
        raise InputError(
            f"{place} must have text or a list of messages as `completion`, got {shown}. Correct the line."
        )
    if not isinstance(row.get("truncated", False), bool):
        raise InputError(f"{place} must have true or false as `truncated`, got {row['truncated']!r}.")
    return row


def _check_encodable(row: dict[str, Any], place: str) -> None:
    r"""Refuse half of a surrogate pair, such as "\ud800", which JSON can say and no output can hold."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place} must be text that UTF-8 can hold, but {error}. Correct the line.") from error
