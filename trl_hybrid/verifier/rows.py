"""What a trainer or a file hands over, checked and made into plain strings."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """What there is to judge: texts, and whether a length limit cut the completion off."""

    completion: str
    solution: str
    prompt: str
    truncated: bool


def row_texts(completions: Any, solutions: Any, prompts: Any, truncated: Sequence[bool] | None) -> list[Row]:
    """The rows of columns; what is missing of prompts and truncated is empty and false.

    Raises:
        TypeError: A completion, solution or prompt is of another kind, or there is no `solution` column.
        ValueError: The columns are not equally long.
    """
    texts = completion_texts(completions)
    count = len(texts)
    cut_off = [False] * count if truncated is None else truncated
    columns = texts, solution_texts(solutions, count), prompt_texts(prompts, count), cut_off
    return [Row(*row) for row in zip(*columns, strict=True)]


def completion_texts(completions: Any) -> list[str]:
    """Each completion's text: the string itself, or the content of its last message.

    Raises:
        TypeError: A completion is neither a string nor a list of messages.
    """
    return [
        _text(completion, f"completions[{row}]")
        for row, completion in enumerate(_sequence(completions, "completions"))
    ]


def prompt_texts(prompts: Any, rows: int) -> list[str]:
    """Each prompt's text, empty strings where there are no prompts.

    Raises:
        TypeError: A prompt is neither a string nor a list of messages.
        ValueError: There are not as many prompts as rows.
    """
    if prompts is None:
        return [""] * rows
    texts = [_text(prompt or "", f"prompts[{row}]") for row, prompt in enumerate(_sequence(prompts, "prompts"))]
    _check_length(texts, "prompts", rows)
    return texts


def solution_texts(solutions: Any, rows: int) -> list[str]:
    """Each solution's text; a number is taken as its string, a missing value as a blank one.

    Raises:
        TypeError: A solution is neither a string nor a number, or there is no `solution` column.
        ValueError: There are not as many solutions as rows.
    """
    if solutions is None:
        raise TypeError(
            "solution must be a list with one reference answer per completion, got None. Fix: give the data set a "
            "column `solution` (rename `answer` or `gold` to it)."
        )
    texts = [_solution(solution, row) for row, solution in enumerate(_sequence(solutions, "solution"))]
    _check_length(texts, "solution", rows)
    return texts


def _sequence(values: Any, name: str) -> Sequence[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(
            f"{name} must be a list with one entry per completion, got {_shown(values)}. Fix: wrap it in a list."
        )
    return values


def _check_length(values: Sequence[Any], name: str, rows: int) -> None:
    if len(values) != rows:
        raise ValueError(
            f"{name} must have one entry per completion, got {len(values)} for {rows} completions. Fix: repeat each "
            f"row's {name} for every completion of its group."
        )


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and value and isinstance(value[-1], dict) and "content" in value[-1]:
        return _content(value[-1]["content"], name)
    raise TypeError(
        f"{name} must be a string or a list of messages such as [{{'role': 'assistant', 'content': '...'}}], got "
        f"{_shown(value)}."
    )


def _content(content: Any, name: str) -> str:
    """A message's content: a string, nothing (a tool call), or a list of typed parts of which the text counts."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Sequence) and all(isinstance(part, dict) for part in content):
        return "".join(part.get("text") or "" for part in content)
    raise TypeError(f"{name} must have a string or a list of parts as its content, got {_shown(content)}.")


def _solution(solution: Any, row: int) -> str:
    if solution is None:
        return ""
    if isinstance(solution, (str, int, float)) and not isinstance(solution, bool):
        return str(solution)
    raise TypeError(f"solution[{row}] must be a string or a number, got {_shown(solution)}.")


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {repr(value)[:60]}"
