"""Which columns of a data set hold the problem and the gold answer, and what a row makes of them.

The two tuples are the whole table; the first of them that a data set has is taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trl_hybrid.errors import InputError
from trl_hybrid.verifier import MathVerifier, extract_gold
from trl_hybrid.verifier.rows import completion_texts


PROMPT_COLUMNS = ("prompt", "question", "problem", "messages")
# Where there are both, a short answer is a better gold than the solution that leads to it.
SOLUTION_COLUMNS = (
    "reward_model.ground_truth",
    "ground_truth",
    "final_answer",
    "expected_answer",
    "answer",
    "solution",
)

Message = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """Where a data set keeps its problems and gold answers.

    Attributes:
        prompt: Column, or dotted path into one.
        solution: The same; `None` for the assistant's last turn in `prompt`.
    """

    prompt: str
    solution: str | None


def find_columns(
    paths: Sequence[str],
    first_row: Mapping[str, Any],
    name: str,
    prompt_column: str | None = None,
    solution_column: str | None = None,
) -> Columns:
    """Choose the columns by the table, or take those that the user named.

    Raises:
        InputError: There is none of the columns that were looked for.
    """
    prompt = _choose(paths, [prompt_column] if prompt_column else PROMPT_COLUMNS)
    if prompt is None:
        raise _missing(paths, prompt_column, PROMPT_COLUMNS, name, "problem", "dataset_prompt_column")
    solution = _choose(paths, [solution_column] if solution_column else SOLUTION_COLUMNS)
    if solution is None and (solution_column or not _ends_with_answer(value_at(first_row, prompt))):
        raise _missing(paths, solution_column, SOLUTION_COLUMNS, name, "gold answer", "dataset_solution_column")
    return Columns(prompt, solution)


def column_paths(fields: Mapping[str, Any]) -> list[str]:
    """List the columns of a row, or of a data set's features, with the fields inside them.

    Example:
        >>> column_paths({"question": "1 + 1?", "reward_model": {"style": "rule", "ground_truth": "2"}})
        ['question', 'reward_model', 'reward_model.style', 'reward_model.ground_truth']
    """
    return list(_walk(fields, ""))


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """Return what a row holds under a column's name or a dotted path; `None` where the way ends early.

    Example:
        >>> value_at({"reward_model": {"ground_truth": "2"}}, "reward_model.ground_truth")
        '2'
        >>> value_at({"reward_model": None}, "reward_model.ground_truth") is None
        True
    """
    if path in row:
        return row[path]
    head, _, rest = path.partition(".")
    inner = row.get(head)
    return value_at(inner, rest) if rest and isinstance(inner, Mapping) else None


def to_task(
    row: Mapping[str, Any], columns: Columns, system_prompt: str | None = None, labels: Sequence[str] | None = None
) -> dict[str, Any]:
    r"""Turn a row into chat messages and a gold answer, which is blank where the row has none.

    Args:
        row: With the columns.
        columns: Where problem and gold are.
        system_prompt: Put before a problem that has no system message.
        labels: Names of the classes, where the gold's column holds their numbers.

    Example:
        >>> to_task({"question": "1 + 1?", "answer": "One more is two. #### 2"}, Columns("question", "answer"))
        {'prompt': [{'role': 'user', 'content': '1 + 1?'}], 'solution': '2'}
    """
    value = value_at(row, columns.prompt)
    messages = _messages(value, columns.prompt)
    if _ends_with_answer(value):
        *messages, last = messages
    else:
        last = {"content": ""}
    gold = last["content"] if columns.solution is None else value_at(row, columns.solution)
    if system_prompt and not (messages and messages[0]["role"] == "system"):
        messages = [{"role": "system", "content": system_prompt}, *messages]
    return {"prompt": messages, "solution": gold_text(_named(gold, labels or ()), columns.solution or columns.prompt)}


def check_mapped(data: Any, verifier: Any = None) -> None:
    """Refuse a trainer's data set whose rows have not been mapped to `prompt` and `solution`.

    Args:
        data: A data set, several by name, or `None`; a stream that does not know its columns passes.
        verifier: What reads the golds; a [`MathVerifier`] needs `solution`.

    Raises:
        InputError: A column is missing.
    """
    if isinstance(data, Mapping):
        for part in data.values():
            check_mapped(part, verifier)
        return
    found = getattr(data, "column_names", None)
    needed = ["prompt", "solution"] if isinstance(verifier, MathVerifier) else ["prompt"]
    missing = [name for name in needed if found is not None and name not in found]
    if missing:
        raise InputError(
            f"The trainer's rows must have `prompt` and `solution` (the gold answer), but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; they have {', '.join(found or [])}. Load them by "
            "trl_hybrid.data.load_tasks(NAME), which finds the columns, or rename the columns."
        )


def _walk(fields: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, inner in fields.items():
        yield f"{prefix}{name}"
        if isinstance(inner, Mapping):
            yield from _walk(inner, f"{prefix}{name}.")


def _choose(paths: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((path for path in wanted if path in paths), None)


def _missing(
    paths: Sequence[str], named: str | None, table: Sequence[str], name: str, meaning: str, option: str
) -> InputError:
    looked_for = named or ", ".join(table)
    return InputError(
        f"The data set {name!r} has no column for the {meaning}: looked for {looked_for}; it has {', '.join(paths)}. "
        f"Name the column by --{option} (a field inside a column as column.field; one inside a list cannot be named)."
    )


def _ends_with_answer(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and _role(value[-1]) == "assistant"


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _messages(value: Any, column: str) -> list[Message]:
    if value is None or isinstance(value, str):
        return [{"role": "user", "content": value or ""}]
    if isinstance(value, list) and value and all(_role(message) for message in value):
        texts = completion_texts([[{"content": message.get("content")}] for message in value])
        return [{"role": message["role"], "content": text} for message, text in zip(value, texts, strict=True)]
    raise InputError(
        f"A problem must be text or chat messages with `role` and `content`, got {repr(value)[:200]} in column "
        f"{column!r}. Name the right column by --dataset_prompt_column."
    )


def gold_text(answer: Any, column: str) -> str:
    r"""Take the final answer out of a solution: what stands in its last box, or behind `####`, or all of it.

    Raises:
        InputError: It is neither.

    Example:
        >>> gold_text("It is \\boxed{5}.", "solution"), gold_text([1, "2"], "answer"), gold_text(None, "answer")
        ('5', '1, 2', '')
    """
    if isinstance(answer, Mapping):
        fields = ", ".join(f"{column}.{field}" for field in answer)
        raise InputError(
            f"A gold answer must be text or a number, but column {column!r} holds several fields. Name one of them by "
            f"--dataset_solution_column: {fields}."
        )
    if isinstance(answer, list):
        if any(isinstance(part, Mapping) for part in answer):
            raise InputError(
                f"A gold answer must be text or a number, or a list of them, but column {column!r} holds a list of "
                f"{repr(answer[0])[:80]}. Make a column of final answers, or name another by "
                "--dataset_solution_column."
            )
        return ", ".join(gold_text(part, column) for part in answer)
    # A column of whole numbers with a gap is one of floats.
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    return extract_gold("" if answer is None else str(answer))


def _named(answer: Any, labels: Sequence[str]) -> Any:
    """Put a class's name in the place of its number, of which a negative one means that there is none."""
    if isinstance(answer, list):
        return [_named(part, labels) for part in answer]
    if not labels or not isinstance(answer, int):
        return answer
    return labels[answer] if answer >= 0 else None
