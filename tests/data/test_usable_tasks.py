"""What cannot be trained on is left out and said, the same for rows in memory and in a stream."""

import pytest

from trl_hybrid.data import load_tasks
from trl_hybrid.data.prompt_reader import PromptReader
from trl_hybrid.data.usable_tasks import check_tasks
from trl_hybrid.errors import InputError


LONG = "What is " + "1 + " * 40 + "1?"
GOOD = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(6)]
BAD = [
    {"question": "Prove it.", "answer": "proof"},
    {"question": "Prove it.", "answer": "proof"},
    {"question": " ", "answer": "4"},
    {"question": "Is it?", "answer": None},
    {"question": LONG, "answer": "41"},
    {"question": "Why?", "answer": "a, b and c are equal"},
]


@pytest.fixture(scope="module")
def reader():
    return PromptReader("data/embedded_policy", max_completion_length=512 - 60)


@pytest.fixture
def rows():
    return [GOOD[0], BAD[0], GOOD[1], *BAD[1:], *GOOD[2:]]


@pytest.mark.parametrize("streaming", [False, True])
def test_unusable_rows_are_left_out_and_counted(jsonl, rows, verifier, reader, streaming):
    tasks = load_tasks(jsonl(rows), streaming=streaming)
    usable, report = check_tasks(tasks, verifier, reader, "mine")
    assert [row["solution"] for row in usable] == ["1", "2", "3", "4", "5", "6"]
    assert [(part.reason, part.rows, part.first_row, part.gold) for part in report.left_out] == [
        ("the gold is a placeholder", 2, 1, "proof"),
        ("there is no problem", 1, 4, "4"),
        ("the gold is blank", 1, 5, ""),
        ("the prompt has more than 60 tokens", 1, 6, "41"),
        ("the gold is no final answer", 1, 7, "a, b and c are equal"),
    ]
    assert (report.rows, report.streamed, report.golds) == (12, streaming, ["1", "2", "3"])
    assert report.rendered[0] == "<|user|>\nWhat is 0 + 1?</s>\n<|assistant|>\n"
    assert len(report.lengths) == 6
    assert max(report.lengths) <= 60


def test_rows_that_are_all_fit_stay_as_they_are(jsonl, verifier, reader):
    tasks = load_tasks(jsonl(GOOD))
    usable, report = check_tasks(tasks, verifier, reader, "mine")
    assert usable is tasks
    assert report.left_out == []


def test_the_rest_of_a_stream_is_held_to_the_same_rules(jsonl, rows, verifier, reader, monkeypatch):
    monkeypatch.setattr("trl_hybrid.data.usable_tasks.STREAM_SAMPLE", 1)
    usable, report = check_tasks(load_tasks(jsonl(rows), streaming=True), verifier, reader, "mine")
    assert report.rows == 1
    # What only algebra could tell is left to the verifier, which gives no verdict on it in training.
    assert [row["solution"] for row in usable] == ["1", "2", "a, b and c are equal", "3", "4", "5", "6"]


def test_half_may_be_unusable_and_no_more(jsonl, verifier, reader):
    proofs = [BAD[0]] * 6
    usable, _ = check_tasks(load_tasks(jsonl(GOOD + proofs)), verifier, reader, "mine")
    assert len(usable) == 6
    tasks = load_tasks(jsonl(GOOD + proofs + [BAD[4]]))
    with pytest.raises(InputError, match=r"7 of 13 of 'mine'(?s:.)*6: the gold is a placeholder \(first in row 6"):
        check_tasks(tasks, verifier, reader, "mine")


def test_stream_of_which_nothing_is_left(jsonl, verifier, reader):
    tasks = load_tasks(jsonl(GOOD), streaming=True, max_question_chars=1)
    with pytest.raises(InputError, match="'mine' has no rows left"):
        check_tasks(tasks, verifier, reader, "mine")


def test_shipped_problems_are_all_fit(verifier):
    reader = PromptReader("data/embedded_policy", max_completion_length=40)
    for name in ("data/dummy_math_tasks.jsonl", "data/addition"):
        _, report = check_tasks(load_tasks(name, max_rows=64), verifier, reader, name)
        assert report.left_out == []
