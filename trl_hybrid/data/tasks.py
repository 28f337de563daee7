"""Any data set becomes rows of `prompt` (chat messages) and `solution` (the gold answer)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Dataset, Features, IterableDataset, List, Value

from trl_hybrid.data.columns import find_columns, to_task, value_at
from trl_hybrid.data.files import OpenRows, are_text, has_split, open_rows
from trl_hybrid.data.text_rows import ROW, parse_row
from trl_hybrid.errors import InputError


# Said outright: by itself `map` gives a new column the type of an old one of its name, and a gold "5" is 5 again.
TASK = Features({"prompt": List({"role": Value("string"), "content": Value("string")}), "solution": Value("string")})


@dataclass(frozen=True)
class TaskSource:
    """Which maths problems, and how their rows become `prompt` and `solution`.

    A row such as `{"question": "What is 2 + 3?", "answer": "5"}` becomes `{"prompt": [{"role": "user", "content":
    "What is 2 + 3?"}], "solution": "5"}`; other columns go, since TRL hands every column to every reward function. No
    row is left out for its gold: what cannot be judged is found by [`~trl_hybrid.data.usable_tasks.check_tasks`].

    Attributes:
        name: Id of a data set on the Hub, a folder, a .json, .jsonl, .csv or .parquet file, or `gym:` and the name of
            one of reasoning-gym's generators. A single file is one split; `split` may name a slice of it
            (`train[:90%]`) and is not looked at otherwise.
        config: Name of the data set's configuration; the options of a generator, as YAML or JSON.
        split: Which split to load.
        streaming: Load rows as they are needed. `max_steps` must then be set for training.
        system_prompt: Put before prompts that have no system message.
        max_question_chars: Leave out longer questions.
        max_rows: Keep at most so many rows.
        prompt_column: Where the problem stands, in place of the table in [`~trl_hybrid.data.columns`]. A field inside
            a column is a dotted path, `reward_model.ground_truth`.
        solution_column: The same for the gold answer.
    """

    name: str
    config: str | None = None
    split: str = "train"
    streaming: bool = False
    system_prompt: str | None = None
    max_question_chars: int | None = None
    max_rows: int | None = None
    prompt_column: str | None = None
    solution_column: str | None = None

    def load(self) -> Dataset | IterableDataset:
        """Load the problems with their gold answers.

        Returns:
            Rows of `prompt` and `solution`.

        Raises:
            InputError: The data set cannot be found or loaded, has no rows, or no column for the problem or the gold
                answer.
        """
        tasks = to_tasks(open_rows(self.name, self.config, self.split, self.streaming), self)
        if isinstance(tasks, Dataset) and len(tasks) == 0:
            raise InputError(
                f"The data set {self.name!r} (split {self.split!r}) has no rows left. Check the split, max_rows "
                f"({self.max_rows}) and max_question_chars ({self.max_question_chars})."
            )
        return tasks

    def load_held_out(self) -> Dataset | None:
        """Load the problems, all into memory, where the data set has this split.

        Of a single file only a slice of its rows is held out, `train[90%:]`. With `streaming` the rows that are kept
        are fetched and no others.

        Returns:
            Rows of `prompt` and `solution`, or `None` where there is no such split or `max_rows` is 0.

        Raises:
            InputError: As for [`load`].
        """
        if self.max_rows == 0 or not has_split(self.name, self.config, self.split):
            return None
        tasks = self.load()
        return tasks if isinstance(tasks, Dataset) else Dataset.from_list(list(tasks))


def load_tasks(name: str, config: str | None = None, split: str = "train", **more: Any) -> Dataset | IterableDataset:
    """Load maths problems with their gold answers; the arguments are the attributes of [`TaskSource`].

    Example:
        >>> tasks = load_tasks("data/dummy_math_tasks.jsonl", max_rows=3)
        >>> tasks.column_names
        ['prompt', 'solution']
    """
    return TaskSource(name, config, split, **more).load()


def load_test_tasks(name: str, config: str | None = None, split: str = "test", **more: Any) -> Dataset | None:
    """Load held-out problems where there are any, see [`TaskSource.load_held_out`]."""
    return TaskSource(name, config, split, **more).load_held_out()


def to_tasks(opened: OpenRows, source: TaskSource) -> Dataset | IterableDataset:
    """Map rows to `prompt` and `solution`.

    Args:
        opened: The rows.
        source: How.

    Raises:
        InputError: No column for the problem or the gold answer.
    """
    rows, first_row = opened.rows, opened.first_row
    columns = find_columns(opened.paths, first_row, source.name, source.prompt_column, source.solution_column)
    shared = {"columns": columns, "labels": label_names(rows.features or {}, columns.solution)}
    if source.max_question_chars is not None:
        rows = rows.filter(_is_short, fn_kwargs={"max_chars": source.max_question_chars, **shared})
    if source.max_rows is not None:
        rows = rows.take(source.max_rows)
    # The cache knows the function by its name: after an upgrade it would give what an older one made.
    anew: dict[str, Any] = {"load_from_cache_file": False} if isinstance(rows, Dataset) else {}
    return rows.map(
        _task,
        fn_kwargs={"system_prompt": source.system_prompt, **shared},
        remove_columns=[ROW] if are_text(rows) else [column for column in first_row if column not in TASK],
        features=TASK,
        **anew,
    )


def label_names(features: Mapping[str, Any], column: str | None) -> list[str] | None:
    """Return what the numbers of a column of classes stand for; `None` for any other column."""
    feature = value_at(features, column) if column else None
    feature = getattr(feature, "feature", feature)  # of a list
    return feature.names if isinstance(feature, ClassLabel) else None


def _task(row: dict[str, Any], system_prompt: str | None = None, **shared: Any) -> dict[str, Any]:
    return to_task(parse_row(row[ROW]) if ROW in row else row, system_prompt=system_prompt, **shared)


def _is_short(row: dict[str, Any], max_chars: int, **shared: Any) -> bool:
    messages = _task(row, **shared)["prompt"]
    return not messages or len(messages[-1]["content"]) <= max_chars
