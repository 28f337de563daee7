"""Rows of .csv, .json and .jsonl files, with every answer as it is written.

A table of typed columns would change them: 88888889888888899 in a column with a gap is a float and ends in 896, "007"
is 7, a whole number of more than 64 bits is rounded, and "2024-01-05" is a point in time. So each row stays text, in
one column, until its problem and its gold are taken out of it.
"""

import csv
import json
import re
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError


SUFFIXES = (".csv", ".json", ".jsonl")

ROW = "__row__"
"""The only column of such a data set: a row as a JSON object."""

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

WHOLE_FLOAT = re.compile(r"(-?\d+)\.0")


def text_rows(files: Iterable[tuple[str, int, int]]) -> Iterator[dict[str, str]]:
    """Read files one after the other.

    Args:
        files: Each file's path, and its time of change and size, by which the cache of a data set knows it.

    Raises:
        InputError: A file is broken; says where.
    """
    for name, *_ in files:
        path = Path(name)
        for row in csv_rows(path) if path.suffix == ".csv" else json_rows(path):
            yield {ROW: row}


def parse_row(text: str) -> dict[str, Any]:
    """Read a row with all numbers as text.

    Example:
        >>> parse_row('{"answer": 88888889888888899, "level": 0.10, "score": 5.0}')
        {'answer': '88888889888888899', 'level': '0.10', 'score': '5'}
    """
    return json.loads(text, parse_int=str, parse_float=number_text, parse_constant=str)


def number_text(number: str) -> str:
    """Return a number's text, but without the `.0` that a whole number gets where its column has a gap."""
    whole = WHOLE_FLOAT.fullmatch(number)
    return whole[1] if whole else number


def json_rows(path: Path) -> Iterator[str]:
    """Read one JSON object a line, or a whole document: an array of objects, or a table by columns."""
    if _is_document(path):
        yield from map(json.dumps, _document_rows(path))
        return
    with closing(decoded_lines(path)) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"Line {number} of {str(path)!r} must be one JSON object, but {error.msg} at character "
                    f"{error.colno}: {_excerpt(line)}. Correct the line."
                ) from error
            _check_object(row, f"Line {number} of {str(path)!r}")
            yield line.strip()


def csv_rows(path: Path) -> Iterator[str]:
    """Read a table with a header, commas and double quotes; a short row ends in blank values."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with closing(decoded_lines(path)) as lines:
        reader = csv.DictReader(lines, restval="", strict=True)
        try:
            header = list(reader.fieldnames or [])
            _check_header(header, path)
            for row in reader:
                if None in row:
                    raise InputError(
                        f"Line {reader.reader.line_num} of {str(path)!r} must have {len(header)} values as the header "
                        f"has, got {len(header) + len(row[None])}. Put a text that holds a comma in double quotes."
                    )
                yield json.dumps({name: number_text(value) for name, value in row.items()}, ensure_ascii=False)
        except csv.Error as error:
            raise InputError(
                f"Line {reader.reader.line_num} of {str(path)!r} is not CSV: {error}. A double quote within quotes is "
                "written twice."
            ) from error


def decoded_lines(path: Path) -> Generator[str, None, None]:
    """Read a file's lines as UTF-8, with or without a byte order mark; close it where it is not read to its end.

    Raises:
        InputError: A line is written in another encoding; says how to convert it.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                likely = "UTF-16" if line.startswith((b"\xff\xfe", b"\xfe\xff")) else "CP1252"
                raise InputError(
                    f"Line {number} of {str(path)!r} must be UTF-8, but has the byte 0x{line[error.start]:02x}. It is "
                    f"probably {likely}: convert it by  iconv -f {likely} -t UTF-8 {path} > {path.stem}-utf8"
                    f"{path.suffix}"
                ) from error
            yield text


def _is_document(path: Path) -> bool:
    with closing(decoded_lines(path)) as lines:
        first, *second = [*islice(filter(str.strip, lines), 2)] or [""]
    if path.suffix != ".json" or first.lstrip().startswith("["):
        return first.lstrip().startswith("[")
    try:
        json.loads(first)
    except json.JSONDecodeError:
        return True
    return not second


def _document_rows(path: Path) -> Iterable[Any]:
    text = "".join(decoded_lines(path))
    try:
        content: Any = parse_row(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"Line {error.lineno} of {str(path)!r} is not JSON: {error.msg} at character {error.colno}. Correct the "
            "line."
        ) from error
    rows = content if isinstance(content, list) else _rows_of_columns(content)
    for number, row in enumerate(rows, start=1):
        _check_object(row, f"Entry {number} of {str(path)!r}")
    return rows


def _rows_of_columns(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turn `{"question": [...], "answer": [...]}`, or pandas' `{"question": {"0": ...}, ...}`, into rows."""
    columns = [list(value.values()) if isinstance(value, Mapping) else value for value in content.values()]
    if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1:
        return [dict(content)]
    return [dict(zip(content, row, strict=True)) for row in zip(*columns, strict=True)]


def _check_object(row: Any, place: str) -> None:
    if not isinstance(row, dict):
        raise InputError(
            f'{place} must be a JSON object such as {{"question": "What is 7 + 8?", "answer": "15"}}, got '
            f"{_excerpt(json.dumps(row))}."
        )


def _check_header(header: list[str], path: Path) -> None:
    used = next((mark for mark in SEPARATORS if len(header) == 1 and mark in header[0]), None)
    if used is not None:
        raise InputError(
            f"The columns of {str(path)!r} must be separated by commas, but its first line, {header[0]!r}, has "
            f'{SEPARATORS[used]}. Convert it:  python -c "import pandas; pandas.read_csv({str(path)!r}, sep={used!r}, '
            f"dtype=str, keep_default_na=False).to_csv('{path.stem}-commas.csv', index=False)\""
        )


def _excerpt(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 80 else f"{text[:80]} ..."
