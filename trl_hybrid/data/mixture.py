"""Several data sets as one: TRL's mixture configuration, each data set with columns of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datasets import Dataset, IterableDataset, concatenate_datasets

from trl_hybrid.data.files import open_rows
from trl_hybrid.data.tasks import TaskSource, to_tasks
from trl_hybrid.errors import InputError


if TYPE_CHECKING:  # trl takes seconds to import
    from trl.scripts.utils import DatasetConfig


def load_mixture(
    parts: Sequence[DatasetConfig],
    source: TaskSource,
    test_split_size: float | None = None,
    max_test_rows: int | None = None,
    seed: int = 0,
) -> tuple[Dataset | IterableDataset, Dataset | None]:
    """Load data sets one after the other into one.

    The columns of each are mapped before they are joined; [`trl.get_dataset`], whose `fraction` is matched, joins
    first and so needs the same columns everywhere.

    Args:
        parts: The data sets; `path` may be a file, as in [`load_tasks`].
        source: How rows become problems; name, configuration and split are each part's. `max_rows` of all are drawn
            from all data sets; the first ones where they are streamed.
        test_split_size: Share, or number, of the rows to hold out; of these, problems that are also trained on go.
        max_test_rows: Hold out at most so many; 0 for none.
        seed: Of the draw and the split.

    Returns:
        Rows of `prompt` and `solution` to train on, and those held out, `None` where none are.

    Raises:
        InputError: A data set cannot be loaded or mapped, or the mixture cannot be made.
    """
    max_rows = source.max_rows
    _check_parts(parts, source.streaming, test_split_size)
    tasks: list[Any] = [_load_part(part, replace(source, name=part.path, max_rows=None)) for part in parts]
    if any(part.fraction is not None for part in parts):
        tasks = _in_proportion(tasks, [part.fraction or 0.0 for part in parts])
    mixture: Dataset | IterableDataset = concatenate_datasets(tasks)
    test = None
    if isinstance(mixture, Dataset):
        if test_split_size is not None:
            mixture, test = _hold_out(mixture, test_split_size, seed)
        if max_rows is not None:
            mixture = mixture.shuffle(seed=seed)
    if max_rows is not None:
        mixture = mixture.take(max_rows)
    if test is not None and max_test_rows is not None:
        test = test.take(max_test_rows) if max_test_rows else None
    return mixture, test


def _load_part(part: DatasetConfig, source: TaskSource) -> Dataset | IterableDataset:
    more = {name: getattr(part, name) for name in ("data_dir", "data_files") if getattr(part, name) is not None}
    opened = open_rows(part.path, part.name, part.split, source.streaming, **more)
    if part.columns is not None:
        missing = [column for column in part.columns if column not in opened.paths]
        if missing:
            raise InputError(
                f"`columns` of {part.path!r} in `datasets` names {', '.join(missing)}; it has "
                f"{', '.join(opened.paths)}."
            )
        opened = opened.only(part.columns)
    return to_tasks(opened, source)


def _in_proportion(tasks: list[Any], fractions: Sequence[float]) -> list[Any]:
    """Keep the first rows of each, so many that the shares are kept and no row is taken twice."""
    shares = [fraction / sum(fractions) for fraction in fractions]
    total = min(len(rows) / share for rows, share in zip(tasks, shares, strict=True) if share > 0)
    return [rows.take(round(share * total)) for rows, share in zip(tasks, shares, strict=True)]


def _hold_out(rows: Dataset, size: float, seed: int) -> tuple[Dataset, Dataset]:
    try:
        both = rows.train_test_split(test_size=int(size) if size >= 1 else size, seed=seed)
    except ValueError as error:
        raise InputError(
            f"test_split_size must leave rows to train on and to measure on, got {size} of {len(rows)} rows: {error}"
        ) from error
    return both["train"], _without_equals(both["test"], both["train"])


def _without_equals(test: Dataset, train: Dataset) -> Dataset:
    """Leave out the held-out problems that are trained on too, as where two data sets share some."""
    held_out = [str(prompt) for prompt in test["prompt"]]
    known = set(held_out)
    shared = {text for prompt in train["prompt"] if (text := str(prompt)) in known}
    return test.select([index for index, text in enumerate(held_out) if text not in shared]) if shared else test


def _check_parts(parts: Sequence[DatasetConfig], streaming: bool, test_split_size: float | None) -> None:
    fractions = [part.fraction for part in parts]
    given = [fraction for fraction in fractions if fraction is not None]
    if given and (len(given) < len(fractions) or min(given) < 0 or sum(given) == 0):
        raise InputError(
            f"`fraction` must be set for all of `datasets` or for none, and must not be negative, got {fractions}."
        )
    if streaming and (given or test_split_size is not None):
        raise InputError(
            "`fraction` and `test_split_size` need to know how many rows there are: leave them out, or set streaming "
            "and dataset_streaming to false."
        )
    if test_split_size is not None and test_split_size <= 0:
        raise InputError(f"test_split_size must be above 0, got {test_split_size}. Leave it out to hold out nothing.")
