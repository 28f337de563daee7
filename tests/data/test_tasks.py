"""Rows from a file, a folder or the Hub become tasks; what cannot be loaded is named with its fix."""

import json

import pandas as pd
import pytest

from trl_hybrid.data import load_tasks, load_test_tasks, split_location
from trl_hybrid.errors import InputError


ROWS = [{"question": f"What is {n} + 3?", "answer": str(n + 3)} for n in range(5)]


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet"])
def test_every_kind_of_file_gives_what_jsonl_gives(tmp_path, jsonl, suffix):
    frame, path = pd.DataFrame(ROWS), tmp_path / f"rows.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(ROWS))
    elif suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    assert list(load_tasks(str(path))) == list(load_tasks(jsonl(ROWS)))


def test_gap_in_a_column_of_whole_numbers(tmp_path):
    """A .csv file's column of whole numbers with a gap is read as one of floats."""
    (tmp_path / "tasks.csv").write_text("question,answer\nWhat is 2 + 3?,5\nAnd then?,\n")
    assert load_tasks(str(tmp_path / "tasks.csv"))["solution"] == ["5", ""]


def test_limit_of_rows_comes_after_the_limit_of_characters(jsonl):
    rows = [{"question": "q" * n, "answer": str(n)} for n in (9, 10, 2, 1, 8)]
    assert load_tasks(jsonl(rows), max_question_chars=3, max_rows=1)["solution"] == ["2"]
    assert load_tasks(jsonl(rows), max_question_chars=8)["solution"] == ["2", "1", "8"]


def test_rows_with_blank_golds_are_kept_for_who_counts_them(jsonl):
    rows = [{"question": "a", "answer": gold} for gold in ("1", "", None, "####")]
    assert load_tasks(jsonl(rows))["solution"] == ["1", "", "", ""]


def test_file_may_be_split_by_slices(jsonl):
    file = jsonl(ROWS)
    assert load_tasks(file, split="train[:60%]")["solution"] == ["3", "4", "5"]
    assert load_test_tasks(file, split="train[60%:]")["solution"] == ["6", "7"]
    assert load_test_tasks(file) is None


def test_held_out_rows_of_a_stream_are_in_memory(tmp_path, jsonl):
    jsonl(ROWS, "train.jsonl")
    jsonl(ROWS, "test.jsonl")
    tasks = load_test_tasks(str(tmp_path), streaming=True, max_rows=2)
    assert tasks["solution"] == ["3", "4"]
    assert len(tasks) == 2


def test_columns_may_be_named(jsonl):
    rows = [{"text": "q", "label": {"value": "7"}, "answer": "8"}]
    tasks = load_tasks(jsonl(rows), prompt_column="text", solution_column="label.value", system_prompt="s")
    assert tasks[0] == {
        "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        "solution": "7",
    }


def test_long_questions_and_rows_past_the_limit_are_left_out(jsonl):
    rows = [{"question": "q" * n, "answer": str(n)} for n in (3, 10, 2, 1)]
    file = jsonl(rows)
    assert load_tasks(file, max_question_chars=3, max_rows=2)["solution"] == ["3", "2"]


def test_streaming_gives_the_same_rows(jsonl):
    file = jsonl([{"question": f"q{i}", "answer": str(i)} for i in range(5)])
    assert list(load_tasks(file, streaming=True, max_rows=3)) == list(load_tasks(file, max_rows=3))


def test_folder_has_splits(tmp_path, jsonl):
    jsonl([{"question": "a", "answer": "1"}], "train.jsonl")
    jsonl([{"question": "b", "answer": "2"}, {"question": "c", "answer": "3"}], "test.jsonl")
    assert load_tasks(str(tmp_path))["solution"] == ["1"]
    assert load_test_tasks(str(tmp_path))["solution"] == ["2", "3"]
    assert load_test_tasks(str(tmp_path), max_rows=1)["solution"] == ["2"]
    assert load_test_tasks(str(tmp_path), max_rows=0) is None
    assert load_test_tasks(str(tmp_path), split="validation") is None
    assert split_location(str(tmp_path), "test") == str(tmp_path / "test.jsonl")


def test_single_file_and_hub_id_have_a_location_too():
    assert load_test_tasks("data/dummy_math_tasks.jsonl") is None
    assert split_location("data/dummy_math_tasks.jsonl", "train") == "data/dummy_math_tasks.jsonl"
    assert split_location("openai/gsm8k", "test") == "openai/gsm8k:test"


def test_shipped_problems_load():
    tasks = load_tasks("data/dummy_math_tasks.jsonl", max_question_chars=256)
    assert len(tasks) == 16


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("gold", "text"), [(5, "5"), (5.5, "5.5"), (True, "True"), (["5", "6"], "5, 6"), ([5, 6], "5, 6")]
)
def test_gold_is_text_whatever_the_type_of_a_column_called_solution(jsonl, gold, text, streaming):
    tasks = load_tasks(jsonl([{"question": "q", "solution": gold}] * 2), streaming=streaming)
    assert [task["solution"] for task in tasks] == [text, text]


@pytest.mark.parametrize("streaming", [False, True])
def test_messages_keep_role_and_content_alone(jsonl, streaming):
    message = {"content": "q", "role": "user", "name": "x"}
    tasks = load_tasks(jsonl([{"prompt": [message], "solution": "5"}]), streaming=streaming)
    assert [task["prompt"] for task in tasks] == [[{"role": "user", "content": "q"}]]


def test_row_without_a_question_is_no_long_question(jsonl):
    rows = [{"messages": [{"role": "assistant", "content": "5"}]}]
    assert load_tasks(jsonl(rows), max_question_chars=3)["prompt"] == [[]]


class TestBadInput:
    def test_missing_file(self):
        with pytest.raises(InputError, match=r"'nowhere/tasks.jsonl' does not exist"):
            load_tasks("nowhere/tasks.jsonl")

    def test_unknown_kind_of_file(self, tmp_path):
        (tmp_path / "tasks.xlsx").write_text("")
        with pytest.raises(InputError, match=r"must end in one of \.json"):
            load_tasks(str(tmp_path / "tasks.xlsx"))

    def test_hub_without_network_names_the_id_and_the_way_on(self):
        with pytest.raises(InputError, match=r"'openai/gsm8k'(?s:.)*embedded\.yaml"):
            load_tasks("openai/gsm8k", "main")

    def test_nothing_left(self, jsonl):
        file = jsonl([{"question": "long", "answer": "1"}])
        with pytest.raises(InputError, match="no rows left"):
            load_tasks(file, max_question_chars=1)

    def test_empty_file(self, tmp_path):
        (tmp_path / "tasks.jsonl").write_text("")
        with pytest.raises(InputError, match="is empty"):
            load_tasks(str(tmp_path / "tasks.jsonl"))

    def test_header_without_rows(self, tmp_path):
        (tmp_path / "tasks.csv").write_text("question,answer\n")
        with pytest.raises(InputError, match="no rows"):
            load_tasks(str(tmp_path / "tasks.csv"))

    @pytest.mark.parametrize("streaming", [False, True])
    def test_broken_json_says_where(self, tmp_path, streaming):
        (tmp_path / "tasks.jsonl").write_text('{"question": "a", "answer": "1"}\n{"question": "b", "answ')
        with pytest.raises(InputError, match=r"Line 2 of .*tasks.jsonl' must be one JSON object, but Unterminated"):
            load_tasks(str(tmp_path / "tasks.jsonl"), streaming=streaming)

    def test_unknown_split_lists_the_others(self):
        with pytest.raises(InputError, match=r"split 'dev'\) cannot be loaded: .*'train', 'test'"):
            load_tasks("data/addition", split="dev")
