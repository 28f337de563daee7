"""Where rows come from: the Hub, a folder, a file, a generator."""

import glob
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    Features,
    IterableDataset,
    ReadInstruction,
    Value,
    concatenate_datasets,
    get_dataset_split_names,
    load_dataset_builder,
    load_from_disk,
)
from datasets.data_files import DataFilesDict, get_data_patterns
from datasets.exceptions import DatasetsError

from trl_hybrid.data.columns import column_paths
from trl_hybrid.data.generated import SPLITS, generated_splits, is_generated
from trl_hybrid.data.text_rows import ROW, SUFFIXES, parse_row, text_rows
from trl_hybrid.errors import EMBEDDED_COMMAND, InputError
from trl_hybrid.runs.folder import relative_path


BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}

SAVED, SAVED_SPLITS = ("state.json", "dataset_info.json"), "dataset_dict.json"
"""What `save_to_disk` leaves in the folder of one data set, and of several splits."""

FEATURES = Features({ROW: Value("string")})
"""Of a data set of text files: see [`~trl_hybrid.data.text_rows`]."""

COLUMNS_OF = 100
"""So many rows of a text file say which columns it has."""

OF_ALL_BUILDERS = ("name", "version", "data_dir", "data_files", "description")


@dataclass(frozen=True)
class OpenRows:
    """One split of a data set, with the columns that it has.

    Attributes:
        rows: The rows; those of text files as text (see [`~trl_hybrid.data.text_rows`]).
        first_row: The first of them, as it stands in the file.
        paths: The columns, and the fields inside them as dotted paths.
    """

    rows: Dataset | IterableDataset
    first_row: dict[str, Any]
    paths: list[str]

    def only(self, columns: Sequence[str]) -> "OpenRows":
        """Leave out all other columns."""
        rows = self.rows if are_text(self.rows) else self.rows.select_columns(list(columns))
        first_row = {name: value for name, value in self.first_row.items() if name in columns}
        inside = tuple(f"{column}." for column in columns)
        paths = [path for path in self.paths if path in columns or path.startswith(inside)]
        return replace(self, rows=rows, first_row=first_row, paths=paths)


def are_text(rows: Dataset | IterableDataset) -> bool:
    """Say whether each row is still one text."""
    return ROW in (rows.features or {})


def open_rows(name: str, config: str | None, split: str, streaming: bool = False, **kwargs: Any) -> OpenRows:
    """Open one split with the columns that it has, and read its first row.

    Args:
        name: Id of a data set on the Hub, a folder (of files, or made by `save_to_disk`), a file of one of
            `BUILDERS`' kinds, or `gym:` and a generator's name.
        config: Name of the data set's configuration; the options of a generator.
        split: Which split. A file is all of `train`, of which a slice such as `train[:90%]` can be taken.
        streaming: Load rows as they are needed.
        **kwargs: `data_dir` and `data_files` of [`~datasets.load_dataset`].

    Raises:
        InputError: There is no such data set, file or split, it cannot be read, or it has no rows.
    """
    path = Path(name)
    if path.suffix in BUILDERS and not path.exists():
        raise InputError(f"The data file {name!r} does not exist (looked in {Path.cwd()}). Check dataset_name.")
    if _is_one(path):
        split = split if "[" in split else "train"
    try:
        rows = _split(name, config, split, streaming, kwargs)
        text = are_text(rows)
        first_rows: list[Any] = [*islice(rows, COLUMNS_OF if text else 1)]
    except (OSError, ValueError, DatasetsError) as error:
        raise _not_loaded(name, config, split, error) from error
    if not first_rows:
        raise _no_rows(name)
    if text:
        first_rows = [parse_row(row[ROW]) for row in first_rows]
    tables = first_rows if text else [rows.features or {}, *first_rows]
    return OpenRows(rows, first_rows[0], list(dict.fromkeys(path for table in tables for path in column_paths(table))))


def has_split(name: str, config: str | None, split: str) -> bool:
    """Say whether a data set has a split; what is one set of rows, such as a file, has slices of them only.

    Raises:
        InputError: There is no such data set.
    """
    path = Path(name)
    if _is_one(path):
        return "[" in split
    try:
        if is_generated(name):
            names = SPLITS
        elif (path / SAVED_SPLITS).is_file():
            names = list(load_from_disk(name))
        elif path.is_dir():
            names = list(_builder(name, config, {}).config.data_files or {})
        else:
            names = get_dataset_split_names(name, config)
    except (OSError, ValueError) as error:
        raise _not_loaded(name, config, split, error) from error
    return split.partition("[")[0] in map(str, names)


def split_location(name: str, split: str) -> str:
    """Say where a split lies: the file of a local data set, `id:split` of one on the Hub."""
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.glob(f"{split}*") if file.suffix in BUILDERS)
        return relative_path(str(files[0])) if files else name
    return relative_path(name) if path.is_file() else f"{name}:{split}"


def _is_one(path: Path) -> bool:
    """Say whether it is one set of rows: a file, or what `Dataset.save_to_disk` made."""
    return path.is_file() or all((path / name).is_file() for name in SAVED)


def _split(
    name: str, config: str | None, split: str, streaming: bool, kwargs: dict[str, Any]
) -> Dataset | IterableDataset:
    path = Path(name)
    if is_generated(name):
        made = generated_splits(name, config)
        rows = _slices(list(made), made.__getitem__, split)
        return rows.to_iterable_dataset() if streaming else rows
    if _is_one(path) and path.is_dir():
        rows = _slices(["train"], lambda _: load_from_disk(name), split)
        return rows.to_iterable_dataset() if streaming else rows
    if (path / SAVED_SPLITS).is_file():
        saved: Any = load_from_disk(name)
        rows = _slices(list(saved), saved.__getitem__, split)
        return rows.to_iterable_dataset() if streaming else rows
    builder = _builder(name, config, kwargs)
    files = _text_files(builder)
    if files:
        return _streamed(files, split) if streaming else _slices(list(files), lambda part: _table(files[part]), split)
    if streaming:
        return builder.as_streaming_dataset(split=split)  # pyright: ignore[reportReturnType] - of one split
    builder.download_and_prepare()
    return builder.as_dataset(split=split)  # pyright: ignore[reportReturnType] - of one split


def _builder(name: str, config: str | None, kwargs: dict[str, Any]) -> Any:
    """Find a data set's files. A path is a path: `datasets` reads a name with brackets as a pattern."""
    path = Path(name)
    if path.is_file():
        _check_file(path)
        return load_dataset_builder(BUILDERS[path.suffix], data_files=glob.escape(name))
    if not path.is_dir() or not glob.has_magic(name):
        return load_dataset_builder(name, config, **kwargs)
    folder = glob.escape(str(path.resolve()))
    found = DataFilesDict.from_patterns(get_data_patterns(folder), base_path=folder)
    files = {str(part): [file for file in names if Path(file).suffix in BUILDERS] for part, names in found.items()}
    kinds = {BUILDERS[Path(file).suffix] for names in files.values() for file in names}
    if len(kinds) != 1:
        raise InputError(f"A data folder must hold files of one kind of {', '.join(BUILDERS)}, got {name!r}.")
    return load_dataset_builder(kinds.pop(), data_files={part: [*map(glob.escape, files[part])] for part in files})


def _text_files(builder: Any) -> dict[str, list[Path]] | None:
    """Return the files of each split, where all are local text files that nothing is said about."""
    plain = (getattr(builder.config, option.name) == option.default for option in fields(builder.config)
             if option.name not in OF_ALL_BUILDERS)  # fmt: skip
    files = {str(part): [*map(Path, names)] for part, names in (builder.config.data_files or {}).items()}
    every = [file for names in files.values() for file in names]
    return files if every and all(f.suffix in SUFFIXES and f.is_file() for f in every) and all(plain) else None


def _table(files: Sequence[Path]) -> Dataset:
    return Dataset.from_generator(text_rows, features=FEATURES, gen_kwargs={"files": _stamped(files)})


def _streamed(files: dict[str, list[Path]], split: str) -> IterableDataset:
    if split not in files:
        raise ValueError(f"a stream is of one whole split, got {split!r}. Should be one of {list(files)}")
    return IterableDataset.from_generator(text_rows, FEATURES, gen_kwargs={"files": _stamped(files[split])})


def _stamped(files: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """Say what the cache knows files by. A tuple: a list would be shared out among processes."""
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def _slices(names: Collection[str], load: Callable[[str], Any], split: str) -> Dataset:
    """Take what `split` says, such as `train[:90%]`, out of splits of which only those that it names are loaded."""
    wanted = {re.split(r"[\[(]", part)[0].strip() for part in split.split("+")}
    if unknown := wanted.difference(names):
        raise ValueError(f"Unknown split {min(unknown)!r}. Should be one of {list(names)}")
    loaded = {name: load(name) for name in wanted}
    parts = ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in loaded.items()})
    return concatenate_datasets([_slice(loaded[part.splitname], part.from_, part.to) for part in parts])


def _slice(rows: Dataset, start: int | None, end: int | None) -> Dataset:
    return rows.select(range(start or 0, len(rows) if end is None else end))


def _check_file(path: Path) -> None:
    if path.suffix not in BUILDERS:
        raise InputError(f"A data file must end in one of {', '.join(BUILDERS)}, got {str(path)!r}.")
    if path.stat().st_size == 0:
        raise InputError(f"The data file {str(path)!r} is empty. It needs at least one row.")


def _no_rows(name: str) -> InputError:
    return InputError(f"The data set {name!r} has no rows. It needs at least one.")


def _not_loaded(name: str, config: str | None, split: str, error: Exception) -> InputError:
    reason: BaseException = error
    while reason.__cause__ is not None and not isinstance(reason, InputError):
        reason = reason.__cause__  # "An error occurred while generating the dataset" says nothing
    if isinstance(reason, InputError):
        return reason
    if "corresponds to no data" in str(reason):
        return _no_rows(name)
    path = Path(name)
    which = [*([f"configuration {config!r}"] if config else []), *([] if path.is_file() else [f"split {split!r}"])]
    details = f" ({', '.join(which)})" if which else ""
    message = f"The data set {name!r}{details} cannot be loaded: {reason}\n"
    if is_generated(name):
        return InputError(f"{message}Check the split and the generator's options.")
    if path.exists():
        return InputError(f"{message}Check the file and the split.")
    return InputError(f"{message}Check the id, the split and the network. Without a network: {EMBEDDED_COMMAND}")
