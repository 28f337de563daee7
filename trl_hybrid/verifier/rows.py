"""What a trainer or a file hands over, checked and made into plain strings."""

from collections.abc import Sequence
from numbers import Number
from typing import Any, NamedTuple


class Row(NamedTuple):
    """What there is to judge: texts, and whether a length limit cut the completion off."""

    completion: str
    solution: str
    prompt: str
    truncated: bool


def row_texts(completions: Any, solutions: Any, prompts: Any, truncated: Sequence[bool] | None) -> list[Row]:
    """The rows of columns. What is missing is blank or false.

    A number among the solutions is taken as its string; a list or an array is one gold that demands all its values.

    Raises:
        TypeError: A completion, solution or prompt is of another kind, or there is no `solution` column.
        ValueError: The columns are not equally long.
    """
    texts = completion_texts(completions)
    if solutions is None:
        raise TypeError(
            "solution must be a list with one reference answer per completion, got None. Fix: give the data set a "
            "column `solution` (rename `answer` or `gold` to it)."
        )
    prompts = [""] * len(texts) if prompts is None else _sequence(prompts, "prompts")
    columns = {
        "solution": [_solution(solution, row) for row, solution in enumerate(_sequence(solutions, "solution"))],
        "prompts": [text_of(prompt or "", f"prompts[{row}]") for row, prompt in enumerate(prompts)],
        "completion_truncated": [False] * len(texts) if truncated is None else truncated,
    }
    for name, values in columns.items():
        if len(values) != len(texts):
            raise ValueError(
                f"{name} must have one entry per completion, got {len(values)} for {len(texts)} completions. Fix: "
                f"repeat each row's {name} for every completion of its group."
            )
    return [Row(*row) for row in zip(texts, *columns.values(), strict=True)]


def completion_texts(completions: Any) -> list[str]:
    """Each completion's text: the string itself, or the content of its last message.

    Raises:
        TypeError: A completion is neither a string nor a list of messages.
    """
    rows = enumerate(_sequence(completions, "completions"))
    return [text_of(completion, f"completions[{row}]") for row, completion in rows]


def _sequence(values: Any, name: str) -> Sequence[Any]:
    values = _plain(values)
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(
            f"{name} must be a list with one entry per completion, got {_shown(values)}. Fix: wrap it in a list."
        )
    return values


def text_of(value: Any, name: str) -> str:
    """A completion's or prompt's text, as `completion_texts` has it; `name` is what an error calls it."""
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
    solution = _plain(solution)
    if solution is None:
        return ""
    if isinstance(solution, list | tuple):
        return ", ".join(_solution(part, row) for part in solution)
    if isinstance(solution, str | Number) and not isinstance(solution, bool):
        return str(solution)
    raise TypeError(f"solution[{row}] must be a string, a number or a list of them, got {_shown(solution)}.")


def _plain(value: Any) -> Any:
    """A value as Python's own numbers and lists, where it is an array's or a tensor's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {repr(value)[:60]}"
