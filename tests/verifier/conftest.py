import json
from pathlib import Path

import pytest

from trl_hybrid.verifier import MathVerifier


CASES = Path(__file__).parent / "cases"


def read_jsonl(name):
    with open(CASES / name, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def with_texts(rows):
    for row in rows:
        row["text"] = rf"\boxed{{{row['completion']}}}" if row["level"] == "answer" else row["completion"]
    return rows


@pytest.fixture(scope="session")
def cases():
    """Labelled pairs of 21 public projects; `source` names the file that each comes from."""
    return with_texts(read_jsonl("verifier_cases.jsonl"))


@pytest.fixture(scope="session")
def real():
    """Labelled inputs out of public files and bug reports of 2025 and 2026; `why` names the class of each."""
    return with_texts(read_jsonl("real_cases.jsonl"))


@pytest.fixture(scope="session")
def handmade():
    """Pairs of our own with verdicts set by hand, over every kind of answer that the rules know."""
    return read_jsonl("handmade_cases.jsonl")


@pytest.fixture(scope="session")
def prose():
    """Answers in plain sentences with several numbers, as small models write them, labelled by hand."""
    return read_jsonl("prose_cases.jsonl")


@pytest.fixture(scope="session")
def hostile():
    return read_jsonl("hostile_cases.jsonl")


@pytest.fixture(scope="session")
def verifier():
    """One verifier for all tests that do not look at its processes."""
    with MathVerifier(num_workers=2) as verifier:
        yield verifier
