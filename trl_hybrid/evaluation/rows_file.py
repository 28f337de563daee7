"""A JSONL file that grows row by row, and from which an interrupted run goes on only if it is its own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from trl_hybrid.errors import InputError


@dataclass(frozen=True)
class RowsFile:
    """The first rows of an input, each with what was made of it and by what it was made.

    Attributes:
        path: The file.
        rows: The input, without fields of the names below.
        first: Name of the first field that is added to a row.
        maker: Name of the last one: what the others were made by.
        made_by: What they must have been made by, as JSON's types.
        way_out: What the user can do where the file is another one.
    """

    path: Path
    rows: Sequence[dict[str, Any]]
    first: str
    maker: str
    made_by: dict[str, Any]
    way_out: str

    def line(self, row: dict[str, Any], added: dict[str, Any]) -> bytes:
        """Return a row with what is added to it as one line of JSON; `added` begins with the field `first`."""
        return (json.dumps({**row, **added, self.maker: self.made_by}, ensure_ascii=False) + "\n").encode()

    def read(self) -> tuple[list[dict[str, Any]], int]:
        """Read the rows that are there, once they are known to belong to this input and maker.

        Returns:
            The file's whole rows, and the number of bytes that they take: a torn last line counts as not there.
            Nothing and 0 where there is no file.

        Raises:
            InputError: The file holds other rows, or rows of another maker.
        """
        found: list[dict[str, Any]] = []
        end = 0
        if not self.path.exists():
            return found, end
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if number > len(self.rows):
                    raise self._refusal(number, f"is none of the {len(self.rows)} rows of the input")
                start = self._start_of_line(self.rows[number - 1])
                whole = line.endswith(b"\n")
                if not (line.startswith(start) or (not whole and start.startswith(line))):
                    what = self._difference(line, self.rows[number - 1])
                    raise self._refusal(
                        number, f"must be row {number} of the input and what was made of it, but {what}"
                    )
                if whole:
                    found.append(self._parse(line, number))
                    end += len(line)
        return found, end

    def _start_of_line(self, row: dict[str, Any]) -> bytes:
        return f'{json.dumps(row, ensure_ascii=False)[:-1]}, "{self.first}": '.encode()

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            made_by = row[self.maker]
        except (ValueError, KeyError) as error:
            raise self._refusal(number, f"is not as this command writes it: {line[-80:]!r}") from error
        if made_by != self.made_by:
            both = [part for part in made_by.items() if part in self.made_by.items()]
            theirs, ours = (
                json.dumps({name: value for name, value in made.items() if (name, value) not in both})
                for made in (made_by, self.made_by)
            )
            raise InputError(
                f"The rows of one file must be of one {self.maker.replace('_', ' ')}, but row {number} of "
                f"{str(self.path)!r} was made with {theirs} and this run would go on with {ours}. {self.way_out}"
            )
        return row

    def _difference(self, line: bytes, row: dict[str, Any]) -> str:
        """Say what a foreign line has in place of the row."""
        try:
            stored = json.loads(line)
        except ValueError:
            stored = None
        if not isinstance(stored, dict):
            return f"it is {line[:80]!r}"
        if self.first not in stored:
            return f"it has no {self.first}"
        names = [f"`{name}`" for name in row if name not in stored or stored[name] != row[name]]
        return f"its {', '.join(names)} differs" if names else "it is written otherwise"

    def _refusal(self, number: int, what: str) -> InputError:
        return InputError(f"Row {number} of {str(self.path)!r} {what}. {self.way_out}")


def score_fields(score: float) -> dict[str, Any]:
    """Return what is added to a row for a reward model's score. JSON has no NaN and no infinity: `nonfinite` has them.

    >>> score_fields(0.5), score_fields(float("-inf"))
    ({'score': 0.5}, {'score': None, 'nonfinite': '-inf'})
    """
    return {"score": score} if isfinite(score) else {"score": None, "nonfinite": str(score)}
