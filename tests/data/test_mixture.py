"""Several data sets as one, each with columns of its own; `fraction` as in TRL."""

from collections import Counter

import pytest
from trl import DatasetMixtureConfig, get_dataset
from trl.scripts.utils import DatasetConfig

from trl_hybrid.data import TaskSource, load_mixture
from trl_hybrid.errors import InputError


@pytest.fixture
def files(jsonl):
    gsm8k = [{"question": f"g{n}", "answer": f"Work.\n#### {n}"} for n in range(10)]
    verl = [
        {"prompt": [{"role": "user", "content": f"v{n}"}], "reward_model": {"style": "rule", "ground_truth": str(n)}}
        for n in range(30)
    ]
    return jsonl(gsm8k, "gsm8k.jsonl"), jsonl(verl, "verl.jsonl")


def questions(tasks):
    return [row["prompt"][-1]["content"] for row in tasks]


def load(parts, streaming=False, max_rows=None, system_prompt=None, **more):
    source = TaskSource("each part's", streaming=streaming, max_rows=max_rows, system_prompt=system_prompt)
    return load_mixture(parts, source, **more)


@pytest.mark.parametrize("streaming", [False, True])
def test_data_sets_with_other_columns_follow_each_other(files, streaming):
    train, test = load([DatasetConfig(path) for path in files], streaming, system_prompt="s")
    rows = list(train)
    assert questions(rows) == [f"g{n}" for n in range(10)] + [f"v{n}" for n in range(30)]
    assert rows[3] == {
        "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "g3"}],
        "solution": "3",
    }
    assert test is None


def test_fractions_take_the_rows_that_trl_takes(jsonl):
    files = [jsonl([{"prompt": f"{name}{n}", "solution": "1"} for n in range(size)], f"{name}.jsonl")
             for name, size in (("a", 10), ("b", 30))]  # fmt: skip
    parts = [("json", {"data_files": file, "fraction": f}) for file, f in zip(files, (0.5, 1.5), strict=True)]
    mixture = DatasetMixtureConfig([DatasetConfig(path, **rest) for path, rest in parts])
    theirs = get_dataset(mixture)["train"]["prompt"]
    train, _ = load([DatasetConfig(file, fraction=f) for file, f in zip(files, (0.5, 1.5), strict=True)])
    assert questions(train) == list(theirs)
    train, _ = load([DatasetConfig(file, fraction=f) for file, f in zip(files, (1, 1), strict=True)])
    assert Counter(question[0] for question in questions(train)) == {"a": 10, "b": 10}


def test_trls_own_way_to_name_a_file(files):
    train, _ = load([DatasetConfig("json", data_files=files[0], split="train[:2]")])
    assert questions(train) == ["g0", "g1"]


def test_columns_choose_the_gold(jsonl):
    file = jsonl([{"problem": "p", "answer": "1", "solution": "\\boxed{2}"}])
    assert load([DatasetConfig(file)])[0][0]["solution"] == "1"
    assert load([DatasetConfig(file, columns=["problem", "solution"])])[0][0]["solution"] == "2"


def test_held_out_rows_are_not_trained_on_and_the_split_is_the_seeds(files):
    parts = [DatasetConfig(path) for path in files]
    train, test = load(parts, test_split_size=0.25, seed=1)
    assert (len(train), len(test)) == (30, 10)
    assert sorted(questions(train) + questions(test)) == sorted(questions(load(parts)[0]))
    again, few = load(parts, test_split_size=10.0, max_test_rows=4, seed=1)
    assert questions(again) == questions(train)
    assert questions(few) == questions(test)[:4]
    assert load(parts, test_split_size=0.25, max_test_rows=0)[1] is None


def test_a_problem_of_two_data_sets_is_not_held_out_and_trained_on(jsonl):
    rows = [{"question": f"q{n}", "answer": "1"} for n in range(40)]
    parts = [DatasetConfig(jsonl(rows[:30], "a.jsonl")), DatasetConfig(jsonl(rows[20:], "b.jsonl"))]
    train, test = load(parts, test_split_size=0.5, seed=3)
    assert len(train) == 25
    assert 0 < len(test) < 25
    assert not set(questions(train)) & set(questions(test))


def test_max_rows_draws_from_all_data_sets(files):
    train, _ = load([DatasetConfig(path) for path in files], max_rows=20)
    assert set(Counter(question[0] for question in questions(train))) == {"g", "v"}
    assert len(train) == 20


@pytest.mark.parametrize(
    ("fractions", "more", "rule"),
    [
        ((0.5, None), {}, "for all of `datasets` or for none"),
        ((0.5, -1), {}, "must not be negative"),
        ((0.5, 0.5), {"streaming": True}, "how many rows there are"),
        ((None, None), {"streaming": True, "test_split_size": 0.1}, "how many rows there are"),
        ((None, None), {"test_split_size": -0.1}, "above 0"),
    ],
)
def test_mixtures_that_cannot_be_made(files, fractions, more, rule):
    parts = [DatasetConfig(path, fraction=fraction) for path, fraction in zip(files, fractions, strict=True)]
    with pytest.raises(InputError, match=rule):
        load(parts, **more)


def test_more_rows_to_hold_out_than_there_are(files):
    with pytest.raises(InputError, match=r"test_split_size must leave rows .* got 40 of 40 rows"):
        load([DatasetConfig(path) for path in files], test_split_size=40)


@pytest.mark.parametrize("streaming", [False, True])
def test_columns_that_are_not_there(files, streaming):
    with pytest.raises(InputError, match=r"`columns` of .*gsm8k.jsonl.* names text; it has question, answer\."):
        load([DatasetConfig(files[0], columns=["text", "answer"])], streaming)
