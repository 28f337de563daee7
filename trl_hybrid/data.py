"""Any data set becomes rows of `prompt` (chat messages) and `solution` (the gold answer)."""

from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, get_dataset_split_names, load_dataset
from datasets.exceptions import DatasetsError

from trl_hybrid.errors import EMBEDDED_COMMAND, InputError
from trl_hybrid.run_folder import relative_path
from trl_hybrid.verifier import extract_gold, is_blank


BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}

PROMPT_COLUMNS = ("prompt", "question", "problem")
SOLUTION_COLUMNS = ("solution", "answer")


def load_tasks(
    name: str,
    config: str | None = None,
    split: str = "train",
    streaming: bool = False,
    system_prompt: str | None = None,
    max_question_chars: int | None = None,
    max_rows: int | None = None,
) -> Dataset | IterableDataset:
    """Load maths problems with their gold answers.

    A row such as `{"question": "What is 2 + 3?", "answer": "5"}` becomes `{"prompt": [{"role": "user", "content":
    "What is 2 + 3?"}], "solution": "5"}`; other columns go, since TRL hands every column to every reward function.

    Args:
        name: Id of a data set on the Hub, a folder, or a .json, .jsonl, .csv or .parquet file. A single file is one
            split and `split` is not looked at.
        config: Name of the data set's configuration.
        split: Which split to load.
        streaming: Load rows as they are needed. `max_steps` must then be set for training.
        system_prompt: Put before prompts that have no system message.
        max_question_chars: Leave out longer questions.
        max_rows: Keep at most so many rows.

    Returns:
        Rows of `prompt` and `solution`.

    Raises:
        InputError: The data set cannot be found or loaded, has no rows, no column for the problem or the gold answer,
            or a gold answer that no completion could match.
    """
    tasks = _load(name, config, split, streaming)
    if max_rows is not None and max_question_chars is None:
        tasks = tasks.take(max_rows)
    columns = tasks.column_names or list(next(iter(tasks), {}))
    prompt_column = _find_column(PROMPT_COLUMNS, columns, name, "problem")
    solution_column = _find_column(SOLUTION_COLUMNS, columns, name, "gold answer")

    def to_task(row: dict[str, Any], index: int) -> dict[str, Any]:
        prompt = _messages(row[prompt_column], system_prompt)
        return {"prompt": prompt, "solution": _gold(row[solution_column], solution_column, index, name)}

    tasks = tasks.map(
        to_task, with_indices=True, remove_columns=[c for c in columns if c not in ("prompt", "solution")]
    )
    if max_question_chars is not None:
        tasks = tasks.filter(lambda row: len(row["prompt"][-1]["content"]) <= max_question_chars)
    if max_rows is not None:
        tasks = tasks.take(max_rows)
    if isinstance(tasks, Dataset) and len(tasks) == 0:
        raise InputError(
            f"The data set {name!r} (split {split!r}) has no rows left to train on. Check the split and "
            f"max_question_chars ({max_question_chars})."
        )
    return tasks


def load_test_tasks(
    name: str, config: str | None = None, split: str = "test", max_rows: int | None = None, **kwargs: Any
) -> Dataset | None:
    """Load held-out problems, all into memory, where the data set has them.

    Args:
        name: As for [`load_tasks`]. A single file has no second split.
        config: Name of the data set's configuration.
        split: The split that training does not see.
        max_rows: Keep at most so many rows; 0 for none.
        **kwargs: Further arguments of [`load_tasks`].

    Returns:
        Rows of `prompt` and `solution`, or `None` where there is no such split or no row is wanted.

    Raises:
        InputError: As for [`load_tasks`].
    """
    if max_rows == 0 or Path(name).is_file():
        return None
    try:
        if split not in get_dataset_split_names(name, config):
            return None
    except (OSError, ValueError) as error:
        raise _not_loaded(name, config, split, error) from error
    tasks = load_tasks(name, config, split, max_rows=max_rows, **kwargs)
    assert isinstance(tasks, Dataset)
    return tasks


def split_location(name: str, split: str) -> str:
    """Say where a split lies: the file of a local data set, `id:split` of one on the Hub."""
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.glob(f"{split}*") if file.suffix in BUILDERS)
        return relative_path(str(files[0])) if files else name
    return relative_path(name) if path.is_file() else f"{name}:{split}"


def _load(name: str, config: str | None, split: str, streaming: bool) -> Dataset | IterableDataset:
    path = Path(name)
    if path.suffix in BUILDERS and not path.is_file():
        raise InputError(f"The data file {name!r} does not exist (looked in {Path.cwd()}). Check dataset_name.")
    try:
        if path.is_file():
            if path.suffix not in BUILDERS:
                raise InputError(f"A data file must end in one of {', '.join(BUILDERS)}, got {name!r}.")
            if path.stat().st_size == 0:
                raise InputError(f"The data file {name!r} is empty. It needs at least one row.")
            return load_dataset(BUILDERS[path.suffix], data_files=name, split="train", streaming=streaming)
        return load_dataset(name, config, split=split, streaming=streaming)
    except InputError:
        raise
    except (OSError, ValueError, DatasetsError) as error:
        if "corresponds to no data" in str(error):
            raise InputError(f"The data set {name!r} has no rows. It needs at least one.") from error
        raise _not_loaded(name, config, split, error) from error


def _not_loaded(name: str, config: str | None, split: str, error: Exception) -> InputError:
    return InputError(
        f"The data set {name!r} (configuration {config!r}, split {split!r}) cannot be loaded: {error}\n"
        f"Check the id, the split and the network. Without a network this runs: {EMBEDDED_COMMAND}"
    )


def _find_column(wanted: tuple[str, ...], columns: list[str], name: str, meaning: str) -> str:
    for column in wanted:
        if column in columns:
            return column
    raise InputError(
        f"The data set {name!r} has no column for the {meaning}: looked for {', '.join(wanted)}; it has "
        f"{', '.join(columns)}. Rename the column."
    )


def _messages(prompt: str | list[dict[str, str]], system_prompt: str | None) -> list[dict[str, str]]:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if system_prompt and messages[0]["role"] != "system":
        return [{"role": "system", "content": system_prompt}, *messages]
    return messages


def _gold(answer: Any, column: str, index: int, name: str) -> str:
    """Take the final answer out of a solution: what stands in its last box, or behind `####`, or all of it."""
    gold = extract_gold("" if answer is None else str(answer))
    if is_blank(gold):
        raise InputError(
            f"Every row needs a gold answer that a completion can match, got {answer!r} in column {column!r} of row "
            f"{index} of {name!r} (counted from 0). Correct the row or remove it."
        )
    return gold
