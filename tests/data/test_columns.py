"""The table of columns, and what a row makes of them."""

import pytest

from trl_hybrid.data.columns import PROMPT_COLUMNS, SOLUTION_COLUMNS, Columns, column_paths, find_columns, to_task
from trl_hybrid.errors import InputError


USER = {"role": "user", "content": "What is 2 + 3?"}


def columns_of(row, **named):
    return find_columns(column_paths(row), row, "mine", **named)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "What is 2 + 3?", "answer": "5"},
        {"question": "What is 2 + 3?", "answer": 5},
        {"question": "What is 2 + 3?", "answer": 5.0},
        {"question": "What is 2 + 3?", "answer": ["5"]},
        {"prompt": "What is 2 + 3?", "solution": "5"},
        {"problem": "What is 2 + 3?", "solution": "5", "level": "easy"},
        {"prompt": [USER], "solution": "5"},
        {"prompt": [{**USER, "content": [{"type": "text", "text": "What is 2 + 3?"}], "name": None}], "solution": "5"},
        {"question": "What is 2 + 3?", "answer": "Two and three are five.\n#### 5"},
        {"problem": "What is 2 + 3?", "solution": "Counting on from $2$, we get $\\boxed{5}$."},
        {"messages": [USER, {"role": "assistant", "content": "It is \\boxed{5}."}]},
        {"messages": [USER, {"role": "assistant", "content": "It is \\boxed{6}."}], "answer": "5"},
        {"messages": [USER], "ground_truth": "5"},
    ],
)
def test_known_columns_become_prompt_and_solution(row):
    assert to_task(row, columns_of(row)) == {"prompt": [USER], "solution": "5"}


@pytest.mark.parametrize("place", range(len(PROMPT_COLUMNS)))
def test_the_first_prompt_column_of_the_table_is_taken(place):
    row = dict.fromkeys(["answer", *reversed(PROMPT_COLUMNS[place:])], "x")
    assert columns_of(row) == Columns(PROMPT_COLUMNS[place], "answer")


@pytest.mark.parametrize("place", range(len(SOLUTION_COLUMNS)))
def test_the_first_solution_column_of_the_table_is_taken(place):
    row = dict.fromkeys(["problem", *reversed(SOLUTION_COLUMNS[place:])], "x")
    assert columns_of(row) == Columns("problem", SOLUTION_COLUMNS[place])


def test_named_columns_go_before_the_table():
    row = {"question": "no", "answer": "no", "extra_info": {"question": "yes", "gold": {"value": "7"}}}
    named = columns_of(row, prompt_column="extra_info.question", solution_column="extra_info.gold.value")
    assert to_task(row, named) == {"prompt": [{"role": "user", "content": "yes"}], "solution": "7"}


def test_column_whose_name_holds_a_dot():
    row = {"question": "q", "reward_model.ground_truth": "7"}
    assert to_task(row, columns_of(row))["solution"] == "7"


def test_only_the_last_answer_of_a_conversation_is_the_solution():
    talk = [USER, {"role": "assistant", "content": "5"}, {"role": "user", "content": "Twice that?"}]
    row = {"messages": [*talk, {"role": "assistant", "content": "\\boxed{10}"}]}
    assert to_task(row, columns_of(row)) == {"prompt": talk, "solution": "10"}


def test_system_prompt_goes_first_and_never_twice():
    system = {"role": "system", "content": "mine"}
    columns = Columns("prompt", "solution")
    assert to_task({"prompt": [system, USER], "solution": "5"}, columns, "yours")["prompt"] == [system, USER]
    task = to_task({"prompt": "What is 2 + 3?", "solution": "5"}, columns, "yours")
    assert task["prompt"] == [{"role": "system", "content": "yours"}, USER]


def test_missing_values_are_blank():
    columns = Columns("problem", "reward_model.ground_truth")
    assert to_task({"problem": None, "reward_model": None}, columns) == {
        "prompt": [{"role": "user", "content": ""}],
        "solution": "",
    }


def test_several_values_are_one_list():
    assert to_task({"question": "q", "answer": ["1", -2]}, Columns("question", "answer"))["solution"] == "1, -2"


class TestBadInput:
    def test_missing_column_lists_what_is_there_and_what_was_looked_for(self):
        with pytest.raises(
            InputError, match=r"'mine'.*looked for prompt, question, problem, messages; it has text, answer\."
        ):
            columns_of({"text": "q", "answer": "1"})
        with pytest.raises(
            InputError,
            match=r"gold answer: looked for reward_model.ground_truth, .*; it has question, label, label.a\.",
        ):
            columns_of({"question": "q", "label": {"a": "1"}})

    def test_messages_without_an_answer_need_a_gold_column(self):
        with pytest.raises(InputError, match=r"gold answer.*--dataset_solution_column"):
            columns_of({"messages": [USER]})

    def test_named_column_that_is_not_there(self):
        row = {"messages": [USER, {"role": "assistant", "content": "5"}], "answer": "5"}
        with pytest.raises(InputError, match=r"looked for gold; it has messages, answer"):
            columns_of(row, solution_column="gold")
        with pytest.raises(InputError, match=r"looked for text; it has messages, answer"):
            columns_of(row, prompt_column="text")

    def test_column_of_fields_names_the_fields(self):
        row = {"question": "q", "reward_model": {"style": "rule", "ground_truth": "1"}}
        with pytest.raises(InputError, match=r"several fields.*: reward_model.style, reward_model.ground_truth\."):
            to_task(row, Columns("question", "reward_model"))

    @pytest.mark.parametrize("prompt", [5, [], ["text"], [{"from": "human", "value": "q"}]])
    def test_prompt_that_is_neither_text_nor_messages(self, prompt):
        with pytest.raises(InputError, match=r"chat messages.*column 'prompt'"):
            to_task({"prompt": prompt, "answer": "1"}, Columns("prompt", "answer"))
