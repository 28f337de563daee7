"""Labelled rows: of files of model answers, of golds put against themselves and others, of reasoning-gym."""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl_hybrid.verifier import extract_gold


GOLDS = ("gold", "answer", "solution")
LABELS = ("label", "expected", "correct")
MAX_PROBLEMS = 100  # of one kind of reasoning-gym's


@dataclass(frozen=True, slots=True)
class Row:
    """A completion, its gold, whether its source calls it right, and what its source is."""

    source: str
    gold: str
    completion: str
    expected: bool


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a `.jsonl` or `.jsonl.gz` file."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _first(record: dict[str, Any], names: Sequence[str], path: Path) -> Any:
    name = next((name for name in names if name in record), None)
    if name is None:
        raise SystemExit(f"Every row of {path} must have one of {', '.join(names)}; one has {', '.join(record)}.")
    return record[name]


def read_labelled(path: Path, core_only: bool) -> list[Row]:
    """The rows of a labelled file; a bare answer (`level` "answer") is put into a box."""
    rows = []
    for record in read_json_lines(path):
        if core_only and not record.get("core", True):
            continue
        text = record["completion"]
        if record.get("level") == "answer":
            text = rf"\boxed{{{text}}}"
        source = str(record.get("source") or path.name.removesuffix(".gz").removesuffix(".jsonl"))
        rows.append(Row(source, str(_first(record, GOLDS, path)), text, bool(_first(record, LABELS, path))))
    return rows


def gold_checks(path: Path) -> list[Row]:
    """Each gold of a solution file against what is right for it and what is wrong.

    Right are the gold itself and its worked solution, where the file has one; wrong are n + 1, 10 n and -n for a whole
    number, and another row's gold that is written otherwise.
    """
    records = read_json_lines(path)
    golds = [extract_gold(str(_first(record, ("answer", "gold", "solution"), path))) for record in records]
    rows = []
    for number, (record, gold) in enumerate(zip(records, golds, strict=True)):
        if not gold:
            continue
        other = golds[(number + 1) % len(golds)]
        checks = [("itself", gold, True), *((kind, text, False) for kind, text in _moved(gold))]
        if other and other != gold:
            checks.append(("another row's", other, False))
        rows += [Row(f"{path.stem}: {kind}", gold, rf"So \boxed{{{text}}}.", right) for kind, text, right in checks]
        worked = next((text for name in ("solution", "answer") if len(text := str(record.get(name, ""))) > 40), None)
        if worked:
            rows.append(Row(f"{path.stem}: worked solution", gold, worked, expected=True))
    return rows


def _moved(gold: str) -> Iterator[tuple[str, str]]:
    try:
        value = int(gold.replace(",", "").removesuffix(".0"))
    except ValueError:
        return
    yield "n + 1", str(value + 1)
    if value:
        yield "10 n", str(10 * value)
        yield "-n", str(-value)


def open_generator(name: str, size: int) -> Any:
    """Open one of reasoning-gym's generators, always with the same problems."""
    try:
        import reasoning_gym  # pyright: ignore[reportMissingImports]  # the extra `gym`
    except ImportError as error:
        raise SystemExit("This needs reasoning-gym: pip install reasoning-gym") from error
    return reasoning_gym.create_dataset(name, size=size, seed=0)


def reasoning_gym_checks(name: str) -> list[Row]:
    """Problems of reasoning-gym: each answer in a box, and in a sentence, and another problem's."""
    problems = open_generator(name, MAX_PROBLEMS)
    golds = [str(problems[index]["answer"]) for index in range(MAX_PROBLEMS)]
    rows = []
    for number, gold in enumerate(golds):
        rows.append(Row(f"reasoning-gym {name}: boxed", gold, rf"So \boxed{{{gold}}}.", expected=True))
        rows.append(Row(f"reasoning-gym {name}: phrase", gold, f"So the answer is {gold}", expected=True))
        if (other := golds[number - 1]) != gold:
            rows.append(Row(f"reasoning-gym {name}: another's", gold, rf"So \boxed{{{other}}}.", expected=False))
    return rows
