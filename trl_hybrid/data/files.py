"""Where rows come from: the Hub, a folder, a file."""

from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, get_dataset_split_names, load_dataset
from datasets.exceptions import DatasetsError

from trl_hybrid.errors import EMBEDDED_COMMAND, InputError
from trl_hybrid.run_folder import relative_path


BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def open_rows(
    name: str, config: str | None, split: str, streaming: bool = False, **kwargs: Any
) -> tuple[Dataset | IterableDataset, dict[str, Any]]:
    """Open one split with the columns that it has, and read its first row.

    Args:
        name: Id of a data set on the Hub, a folder, or a file of one of `BUILDERS`' kinds.
        config: Name of the data set's configuration.
        split: Which split. A file is all of `train`, of which a slice such as `train[:90%]` can be taken.
        streaming: Load rows as they are needed.
        **kwargs: `data_dir` and `data_files` of [`~datasets.load_dataset`].

    Raises:
        InputError: There is no such data set, file or split, it cannot be read, or it has no rows.
    """
    path = Path(name)
    if path.suffix in BUILDERS and not path.is_file():
        raise InputError(f"The data file {name!r} does not exist (looked in {Path.cwd()}). Check dataset_name.")
    try:
        if path.is_file():
            _check_file(path)
            split = split if "[" in split else "train"
            rows = load_dataset(BUILDERS[path.suffix], data_files=name, split=split, streaming=streaming)
        else:
            rows = load_dataset(name, config, split=split, streaming=streaming, **kwargs)
        first_row = next(iter(rows), None)
    except InputError:
        raise
    except (OSError, ValueError, DatasetsError) as error:
        if "corresponds to no data" in str(error):
            raise _no_rows(name) from error
        raise _not_loaded(name, config, split, error) from error
    if first_row is None:
        raise _no_rows(name)
    return rows, first_row


def has_split(name: str, config: str | None, split: str) -> bool:
    """Say whether a data set has a split; a file has slices of its rows only.

    Raises:
        InputError: There is no such data set.
    """
    if Path(name).is_file():
        return "[" in split
    try:
        return split.partition("[")[0] in get_dataset_split_names(name, config)
    except (OSError, ValueError) as error:
        raise _not_loaded(name, config, split, error) from error


def split_location(name: str, split: str) -> str:
    """Say where a split lies: the file of a local data set, `id:split` of one on the Hub."""
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.glob(f"{split}*") if file.suffix in BUILDERS)
        return relative_path(str(files[0])) if files else name
    return relative_path(name) if path.is_file() else f"{name}:{split}"


def _check_file(path: Path) -> None:
    if path.suffix not in BUILDERS:
        raise InputError(f"A data file must end in one of {', '.join(BUILDERS)}, got {str(path)!r}.")
    if path.stat().st_size == 0:
        raise InputError(f"The data file {str(path)!r} is empty. It needs at least one row.")


def _no_rows(name: str) -> InputError:
    return InputError(f"The data set {name!r} has no rows. It needs at least one.")


def _not_loaded(name: str, config: str | None, split: str, error: Exception) -> InputError:
    reason: BaseException = error
    while reason.__cause__ is not None:  # "An error occurred while generating the dataset" says nothing
        reason = reason.__cause__
    message = f"The data set {name!r} (configuration {config!r}, split {split!r}) cannot be loaded: {reason}\n"
    if Path(name).exists():
        return InputError(f"{message}Check the file and the split.")
    return InputError(f"{message}Check the id, the split and the network. Without a network: {EMBEDDED_COMMAND}")
