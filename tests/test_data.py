"""Columns are mapped in one place, and bad data is named by row, column and fix."""

import json

import pytest

from trl_hybrid.data import load_tasks, load_test_tasks, split_location
from trl_hybrid.errors import InputError


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "What is 2 + 3?", "answer": "5"},
        {"question": "What is 2 + 3?", "answer": 5},
        {"prompt": "What is 2 + 3?", "solution": "5"},
        {"problem": "What is 2 + 3?", "solution": "5", "level": "easy"},
        {"prompt": [{"role": "user", "content": "What is 2 + 3?"}], "solution": "5"},
        {"question": "What is 2 + 3?", "answer": "Two and three are five.\n#### 5"},
        {"problem": "What is 2 + 3?", "solution": "Counting on from $2$, we get $\\boxed{5}$."},
    ],
)
def test_known_columns_become_prompt_and_solution(tmp_path, row):
    tasks = load_tasks(write(tmp_path / "tasks.jsonl", [row]))
    assert tasks[0] == {"prompt": [{"role": "user", "content": "What is 2 + 3?"}], "solution": "5"}


def test_csv_is_read_too(tmp_path):
    (tmp_path / "tasks.csv").write_text("question,answer\nWhat is 2 + 3?,5\n")
    assert load_tasks(str(tmp_path / "tasks.csv"))[0]["solution"] == "5"


def test_system_prompt_goes_first_and_never_twice(tmp_path):
    own = [{"role": "system", "content": "mine"}, {"role": "user", "content": "q"}]
    file = write(tmp_path / "tasks.jsonl", [{"prompt": own, "solution": "1"}])
    assert load_tasks(file, system_prompt="yours")[0]["prompt"] == own
    file = write(tmp_path / "plain.jsonl", [{"question": "q", "answer": "1"}])
    assert load_tasks(file, system_prompt="yours")[0]["prompt"] == [
        {"role": "system", "content": "yours"},
        {"role": "user", "content": "q"},
    ]


def test_long_questions_and_rows_past_the_limit_are_left_out(tmp_path):
    rows = [{"question": "q" * n, "answer": str(n)} for n in (3, 10, 2, 1)]
    file = write(tmp_path / "tasks.jsonl", rows)
    assert load_tasks(file, max_question_chars=3, max_rows=2)["solution"] == ["3", "2"]


def test_streaming_gives_the_same_rows(tmp_path):
    file = write(tmp_path / "tasks.jsonl", [{"question": f"q{i}", "answer": str(i)} for i in range(5)])
    assert list(load_tasks(file, streaming=True, max_rows=3)) == list(load_tasks(file, max_rows=3))


def test_folder_has_splits(tmp_path):
    write(tmp_path / "train.jsonl", [{"question": "a", "answer": "1"}])
    write(tmp_path / "test.jsonl", [{"question": "b", "answer": "2"}, {"question": "c", "answer": "3"}])
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

    def test_missing_column_lists_what_is_there_and_what_was_looked_for(self, tmp_path):
        file = write(tmp_path / "tasks.jsonl", [{"text": "q", "answer": "1"}])
        with pytest.raises(InputError, match="looked for prompt, question, problem; it has text, answer"):
            load_tasks(file)
        file = write(tmp_path / "other.jsonl", [{"question": "q", "label": "1"}])
        with pytest.raises(InputError, match="gold answer: looked for solution, answer; it has question, label"):
            load_tasks(file)

    @pytest.mark.parametrize("gold", ["", " ", None, "None", "nan", "####"])
    def test_gold_that_nothing_can_match_names_its_row(self, tmp_path, gold):
        file = write(tmp_path / "tasks.jsonl", [{"question": "a", "answer": "1"}, {"question": "b", "answer": gold}])
        with pytest.raises(InputError, match="row 1 of"):
            load_tasks(file)

    def test_nothing_left(self, tmp_path):
        file = write(tmp_path / "tasks.jsonl", [{"question": "long", "answer": "1"}])
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

    def test_broken_json(self, tmp_path):
        (tmp_path / "tasks.jsonl").write_text('{"question": "a", "answ')
        with pytest.raises(InputError, match="cannot be loaded"):
            load_tasks(str(tmp_path / "tasks.jsonl"))
