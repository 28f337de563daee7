"""reasoning-gym's generators as data sets: by name, with options, split by the text of the question."""

import importlib.util
import json
import os
import sys

import pytest
import yaml
from trl.scripts.utils import DatasetConfig

from trl_hybrid.data import TaskSource, load_mixture, load_tasks, load_test_tasks
from trl_hybrid.data.generated import split_of
from trl_hybrid.errors import InputError
from trl_hybrid.hub.names import data_link
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.parsing import parse_arguments


MISSING = importlib.util.find_spec("reasoning_gym") is None
REQUIRED = os.environ.get("TRL_HYBRID_REQUIRE_ALL") == "1"

pytestmark = pytest.mark.skipif(MISSING and not REQUIRED, reason="not installed: reasoning-gym")

SMALL = "{min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1, size: 300}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def questions(tasks):
    return [row["prompt"][-1]["content"] for row in tasks]


def both(config, name="gym:chain_sum"):
    return questions(load_tasks(name, config)), questions(load_test_tasks(name, config))


def test_a_generators_problems_become_prompts_and_golds():
    tasks = load_tasks("gym:chain_sum", SMALL, system_prompt="Box it.")
    row = tasks[0]
    expression = row["prompt"][1]["content"].partition(": ")[2]
    assert row["prompt"][0] == {"role": "system", "content": "Box it."}
    assert int(row["solution"]) == eval(expression.removesuffix(" ="))


def test_equal_questions_are_there_once_and_in_one_split():
    train, test = both(SMALL)
    # 300 draws out of 200 questions
    assert 100 < len(train) + len(test) < 200
    assert len(set(train) | set(test)) == len(train) + len(test)
    assert {split_of(question) for question in train} == {"train"}
    assert {split_of(question) for question in test} == {"test"}


def test_no_seed_and_no_size_puts_a_question_into_the_other_split():
    options = {"min_terms": 2, "max_terms": 2, "max_digits": 2}
    first, _ = both(json.dumps({**options, "size": 400, "seed": 1}))
    neighbour, held_out = both(json.dumps({**options, "size": 2000, "seed": 2}))
    # All but the question of row 0 are drawn again.
    assert len(set(first) - set(neighbour)) <= 1
    assert not set(first) & set(held_out)
    assert len(held_out) == pytest.approx(len(neighbour) / 4, rel=0.2)


def test_the_same_options_give_the_same_rows_and_a_seed_far_away_gives_others():
    again, other = both("{size: 50, seed: 0}"), both("{size: 50, seed: 100}")
    assert both("{size: 50}") == again
    assert not set(again[0]) & set(other[0])


def test_slices_rows_and_streams():
    source = TaskSource("gym:chain_sum", SMALL)
    assert questions(load_tasks("gym:chain_sum", SMALL, "train[:3]", max_rows=2)) == questions(source.load())[:2]
    assert questions(load_tasks("gym:chain_sum", SMALL, streaming=True)) == questions(source.load())
    assert load_test_tasks("gym:chain_sum", SMALL, "validation") is None


def test_options_may_be_lists_and_dates():
    assert len(load_tasks("gym:time_intervals", "{size: 20, min_date: 2020-01-01, task_types: [date]}")) > 10


def test_an_answer_that_is_missing_is_a_blank_gold():
    tasks = load_tasks("gym:rush_hour", "{size: 5}")
    assert set(tasks["solution"]) == {""}


def test_generators_mix_with_other_data(jsonl):
    parts = [
        DatasetConfig("gym:gcd", '{"size": 40}', fraction=0.5),
        DatasetConfig("gym:lcm", fraction=0.25),
        DatasetConfig(jsonl([{"question": f"q{n}", "answer": "1"} for n in range(5)]), fraction=0.25),
    ]
    train, _ = load_mixture(parts, TaskSource("each part's"))
    found = questions(train)
    assert sum("Greatest" in question for question in found) == 10
    assert sum("Least" in question for question in found) == sum(question.startswith("q") for question in found) == 5


def test_options_are_a_mapping_in_a_file_and_text_on_the_command_line(tmp_path):
    file = tmp_path / "config.yaml"
    options = {"min_terms": 2, "size": 10}
    file.write_text(yaml.dump({"dataset_name": "gym:chain_sum", "dataset_config": options}))
    (tasks,) = parse_arguments([TaskArguments], {}, ["--config", str(file)])
    assert tasks.dataset_config == "{min_terms: 2, size: 10}"
    (tasks,) = parse_arguments([TaskArguments], {}, ["--config", str(file), "--dataset_config", "{size: 5}"])
    assert tasks.dataset_config == "{size: 5}"
    mixed = TaskArguments(datasets=[{"path": "gym:gcd", "name": options}, {"path": "a/b", "name": "main"}])
    assert [part.name for part in mixed.datasets] == ["{min_terms: 2, size: 10}", "main"]


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("chain_sums", None, "no generator 'chain_sums'. Near it: chain_sum, decimal_chain_sum"),
        ("zzz", None, "no generator 'zzz'. All are listed by"),
        ("chain_sum", "{terms: 2}", r"no option 'terms'. Its options: min_terms \(2\), .*, size \(2000\)"),
        ("chain_sum", "{min_terms: 9}", "refuses its options: max_terms must be >= min_terms"),
        ("gsm_symbolic", "{difficulty: 2.0}", "refuses its options: it does not say why"),
        ("chain_sum", "{min_terms: two}", "refuses its options: '>' not supported"),
        ("chain_sum", "main", "must be a mapping such as .* got 'main'"),
        ("chain_sum", "{min_terms: [", "must be a mapping"),
        ("chain_sum", "{size: 0}", "size of gym:chain_sum must be a whole number, 1 or more; got 0"),
        ("chain_sum", "{seed: null}", "seed of gym:chain_sum must be a whole number, 0 or more; got None"),
    ],
)
def test_what_cannot_be_drawn_is_said(name, config, message):
    with pytest.raises(InputError, match=message):
        load_tasks(f"gym:{name}", config)


def test_an_unknown_split_is_said():
    with pytest.raises(InputError, match=r"Unknown split 'dev'. Should be .*'test'\]\nCheck the split"):
        load_tasks("gym:chain_sum", SMALL, "dev")


def test_without_the_library_the_message_has_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(InputError, match=r"not installed\. Install it: pip install reasoning-gym"):
        load_tasks("gym:chain_sum")


def test_other_data_sets_do_without_the_library(monkeypatch, jsonl):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    assert len(load_tasks(jsonl([{"question": "1 + 1?", "answer": "2"}]))) == 1


def test_a_card_names_the_generator():
    link = data_link(["gym:chain_sum"], '{"size": 5}')
    assert link.endswith('reasoning-gym)\'s `chain_sum`, configuration `{"size": 5}`')
