"""The problems to train on, and their gold answers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from trl_hybrid.checks.finding import Finding
from trl_hybrid.data.golds import find_faults
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.splits import train_source
from trl_hybrid.shipped import shipped_folder
from trl_hybrid.verifier import MathVerifier


SHIPPED_TASKS = "data/dummy_math_tasks.jsonl"

ROWS = 1000
"""Rows that are looked at."""


def check_data(tasks: TaskArguments, verifier: MathVerifier, rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """Load the problems, map their columns and look at their golds; at most `ROWS` go into `rows`."""
    if tasks.datasets:
        yield Finding("skipped", "A mixture of data sets is looked at by the recipe, before it loads a model")
        return
    source = train_source(tasks)
    loaded = replace(source, name=find_shipped(source.name)).load()
    rows.extend(map(dict, loaded.take(ROWS)))
    count = f"{len(rows)} problems" if len(rows) < ROWS else f"the first {ROWS} problems"
    question, gold = rows[0]["prompt"][-1]["content"], rows[0]["solution"]
    yield Finding("ok", f"{tasks.dataset_name}: {count} load, such as {_short(question)} with the answer {gold!r}")
    faults = find_faults(verifier, [row["solution"] for row in rows])
    faulty = [row["solution"] for row in rows if row["solution"] in faults]
    if not faulty:
        yield Finding("ok", "Every gold answer can be judged")
        return
    text = f"{len(faulty)} of {count} cannot be judged, such as {_short(faulty[0])}: {faults[faulty[0]]}"
    few = len(faulty) <= len(rows) / 2
    fix = "Name the column of final answers by --dataset_solution_column, or correct the rows."
    yield Finding("note", f"{text}. They are left out") if few else Finding("problem", text, fix)


def find_shipped(dataset_name: str) -> str:
    """Find the shipped problems from any folder; other names stay as they are."""
    if dataset_name != SHIPPED_TASKS or Path(SHIPPED_TASKS).is_file():
        return dataset_name
    return str(shipped_folder("data") / Path(SHIPPED_TASKS).name)


def _short(text: str, length: int = 60) -> str:
    return repr(text if len(text) <= length else f"{text[:length]}...")
