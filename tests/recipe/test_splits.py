"""What a recipe trains on and what it measures on: two sets of problems, looked at and prompted alike."""

import json
import shutil

import pytest
from trl import ModelConfig
from trl.scripts.utils import DatasetConfig

from trl_hybrid import HybridGRPOConfig
from trl_hybrid.data import TaskSource, split_location
from trl_hybrid.data.prompt_reader import PromptReader
from trl_hybrid.errors import InputError
from trl_hybrid.recipe import splits
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.splits import checked_splits, load_splits, test_location, train_location


test_location.__test__ = False  # no test, in spite of its name

POLICY = "data/embedded_policy"


@pytest.fixture
def folder(tmp_path, jsonl):
    """A folder of problems whose names say the split; one gold of each cannot be judged."""
    for split, golds in (("train", ["1", "proof", "3", "4"]), ("test", ["5", "notfound", "7"])):
        jsonl([{"question": f"{split} {gold}", "answer": gold} for gold in golds], f"{split}.jsonl")
    return str(tmp_path)


def checked(verifier, **settings):
    args = HybridGRPOConfig("unused", use_cpu=True, report_to="none", max_completion_length=400)
    return checked_splits(TaskArguments(**settings), args, ModelConfig(POLICY), verifier)


def questions(tasks):
    return [task["prompt"][-1]["content"] for task in tasks]


def test_what_is_measured_on_is_not_what_is_trained_on(folder, verifier):
    train, test = checked(verifier, dataset_name=folder)
    assert questions(train) == ["train 1", "train 3", "train 4"]
    assert questions(test) == ["test 5", "test 7"]


def test_rows_that_cannot_be_judged_are_left_out_of_both_and_said(folder, verifier, capsys):
    checked(verifier, dataset_name=folder)
    train, test = capsys.readouterr().out.split("Problems: ")[1:]
    assert "train.jsonl\n" in train
    assert "4, 1 left out" in train
    assert "1         <|user|> train 1" in " ".join(train.split(" ")).replace("\n", " ")
    assert "test.jsonl, held out\n" in test
    assert "3, 1 left out" in test
    assert "(first in row 1, gold 'notfound')" in test
    assert "gold: " in train
    assert "gold: " not in test  # two blocks of examples are no better than one


def test_prompts_that_leave_no_room_are_left_out_of_both(tmp_path, jsonl, verifier):
    for split in ("train", "test"):
        jsonl([{"question": question, "answer": "1"} for question in ("short", "1 + " * 150)], f"{split}.jsonl")
    assert [questions(tasks) for tasks in checked(verifier, dataset_name=str(tmp_path))] == [["short"], ["short"]]


@pytest.mark.parametrize(
    ("use_vllm", "kept"), [(True, ["short"]), (False, ["short", "1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1"])]
)
def test_with_vllm_its_own_context_is_the_bound(jsonl, verifier, use_vllm, kept):
    file = jsonl([{"question": question, "answer": "1"} for question in ("short", "1 + " * 11 + "1")], "a.jsonl")
    args = HybridGRPOConfig(
        "unused",
        use_cpu=True,
        report_to="none",
        max_completion_length=100,
        use_vllm=use_vllm,
        vllm_max_model_length=120,
    )
    train, _ = checked_splits(TaskArguments(dataset_name=file), args, ModelConfig(POLICY), verifier)
    assert questions(train) == kept


def test_prompts_are_read_as_the_trainer_reads_them(folder, verifier, monkeypatch):
    asked = []

    def reader(*args):
        asked.append(args)
        return PromptReader(POLICY, 400)

    monkeypatch.setattr(splits, "PromptReader", reader)
    own = {"max_completion_length": 400, "trust_remote_code": True, "chat_template_kwargs": {"enable_thinking": False}}
    args = HybridGRPOConfig("unused", use_cpu=True, report_to="none", **own)
    checked_splits(TaskArguments(dataset_name=folder), args, ModelConfig(POLICY, model_revision="v1"), verifier)
    assert asked == [(POLICY, 400, None, "v1", True, {"enable_thinking": False})]


@pytest.mark.parametrize("mixture", [False, True])
def test_both_get_the_system_prompt(folder, mixture, verifier):
    named = {"datasets": [DatasetConfig(folder)], "test_split_size": 0.5} if mixture else {"dataset_name": folder}
    for tasks in checked(verifier, system_prompt="Think.", **named):
        assert len(tasks) > 0
        assert {task["prompt"][0]["content"] for task in tasks} == {"Think."}
        assert all(task["prompt"][0]["role"] == "system" and len(task["prompt"]) == 2 for task in tasks)


@pytest.mark.parametrize(
    ("setting", "train", "test"),
    [
        ({"max_rows": 2}, ["train 1", "train proof"], 3),
        ({"max_test_rows": 1}, 4, ["test 5"]),
        ({"max_question_chars": 7}, ["train 1", "train 3", "train 4"], ["test 5", "test 7"]),
    ],
)
def test_limits_of_rows_and_characters(folder, setting, train, test):
    for tasks, expected in zip(
        load_splits(TaskArguments(dataset_name=folder, **setting), 0), (train, test), strict=True
    ):
        assert questions(tasks) == expected if isinstance(expected, list) else len(tasks) == expected


def test_columns_are_named_for_both(tmp_path, jsonl):
    for split in ("train", "test"):
        jsonl([{"text": f"{split}?", "label": "7", "question": "no", "answer": "no"}], f"{split}.jsonl")
    named = {"dataset_prompt_column": "text", "dataset_solution_column": "label"}
    train, test = load_splits(TaskArguments(dataset_name=str(tmp_path), **named), 0)
    assert [questions(train), questions(test)] == [["train?"], ["test?"]]
    assert [list(train["solution"]), list(test["solution"])] == [["7"], ["7"]]


def test_nothing_is_measured_on_the_split_that_is_trained_on(folder, verifier, capsys):
    train, test = checked(verifier, dataset_name=folder, dataset_train_split="test")
    assert questions(train) == ["test 5", "test 7"]
    assert test is None
    said = "Held-out accuracy is not measured: there is no test split of its own, or max_test_rows is 0."
    assert said in capsys.readouterr().out.splitlines()


def test_other_splits_may_be_named(folder):
    train, test = load_splits(
        TaskArguments(dataset_name=folder, dataset_train_split="test[:2]", dataset_test_split="train[3:]"), 0
    )
    assert [questions(train), questions(test)] == [["test 5", "test notfound"], ["train 4"]]


class TestMixture:
    @pytest.fixture
    def parts(self, jsonl):
        names = [(name, [{"question": f"{name}{n}", "answer": str(n)} for n in range(20)]) for name in "ab"]
        return [DatasetConfig(jsonl(rows, f"{name}.jsonl")) for name, rows in names]

    def split(self, parts, seed, **settings):
        tasks = TaskArguments(datasets=parts, test_split_size=0.25, **settings)
        return [questions(part) for part in load_splits(tasks, seed)]

    def test_the_seed_decides_what_is_held_out(self, parts):
        train, test = self.split(parts, seed=1)
        assert sorted(train + test) == sorted(f"{name}{n}" for name in "ab" for n in range(20))
        assert [train, test] == self.split(parts, seed=1)
        assert set(test) != set(self.split(parts, seed=2)[1])

    def test_the_seed_decides_what_max_rows_draws(self, parts):
        drawn = [set(self.split(parts, seed, max_rows=10)[0]) for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_it_is_the_runs_own_seed(self, parts, verifier):
        def held_out(seed):
            args = HybridGRPOConfig("unused", use_cpu=True, report_to="none", max_completion_length=400, seed=seed)
            tasks = TaskArguments(datasets=parts, test_split_size=0.25)
            return questions(checked_splits(tasks, args, ModelConfig(POLICY), verifier)[1])

        assert held_out(1) == self.split(parts, 1)[1]
        assert held_out(2) == self.split(parts, 2)[1]

    def test_limits(self, parts):
        assert [len(part) for part in self.split(parts, 0, max_rows=7, max_test_rows=3)] == [7, 3]

    def test_locations(self, parts):
        tasks = TaskArguments(datasets=parts, test_split_size=0.25)
        files = ", ".join(part.path for part in parts)
        assert (train_location(tasks), test_location(tasks)) == (files, f"0.25 of {files}")


@pytest.mark.parametrize("streaming", [{"dataset_streaming": True}, {"streaming": True}])
def test_a_stream_is_trained_on_and_its_held_out_rows_are_in_memory(folder, verifier, streaming):
    train, test = checked(verifier, dataset_name=folder, **streaming)
    assert not hasattr(train, "__len__")
    assert questions(train) == ["train 1", "train 3", "train 4"]
    assert questions(test) == ["test 5", "test 7"]
    assert len(test) == 2


def test_no_more_of_a_stream_is_fetched_than_is_held_out(tmp_path, jsonl):
    for split in ("train", "test"):
        jsonl([{"question": "q", "answer": "1"}] * 300, f"{split}.jsonl")
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write("no json")
    _, test = load_splits(TaskArguments(dataset_name=str(tmp_path), dataset_streaming=True, max_test_rows=2), 0)
    assert len(test) == 2
    with pytest.raises(InputError, match="Line 301"):
        load_splits(TaskArguments(dataset_name=str(tmp_path), max_test_rows=2), 0)


def test_locations(folder):
    tasks = TaskArguments(dataset_name=folder)
    assert (train_location(tasks), test_location(tasks)) == (f"{folder}/train.jsonl", f"{folder}/test.jsonl")


def measured(verifier, checkpoint=None, policy=POLICY, max_steps=1, **tasks):
    args = HybridGRPOConfig(
        "unused", use_cpu=True, report_to="none", max_completion_length=40, max_steps=max_steps, num_generations=8,
        per_device_train_batch_size=128,
    )  # fmt: skip
    asked = TaskArguments(dataset_name="data/addition", max_rows=32, **tasks)
    train, test = checked_splits(asked, args, ModelConfig(model_name_or_path=policy), verifier, checkpoint)
    assert len(train) == 32
    assert len(test) == asked.max_test_rows
    return asked.max_test_rows


def test_a_short_run_measures_fewer_problems_unless_told(verifier, capsys):
    # 9 answers each, twice: 40 steps of 128 completions pay for 284 problems, of which 256 are taken, and 10 for 71.
    assert measured(verifier, max_steps=40) == 256
    assert measured(verifier, max_steps=10) == 71
    assert "Of 256 held-out problems 71 are measured, for a short run" in capsys.readouterr().out
    assert measured(verifier, max_steps=1) == 16
    assert measured(verifier, max_steps=1, max_test_rows=40) == 40


def test_a_run_that_goes_on_measures_what_it_measured_at_its_start(verifier, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"settings": {"tasks": {"max_test_rows": 20}}}))
    assert measured(verifier, str(tmp_path / "checkpoint-5"), max_steps=10) == 20


@pytest.mark.parametrize(("asked", "measured_again"), [(300, 300), (0, None)])
def test_a_run_that_goes_on_measures_as_many_as_were_named(verifier, tmp_path, jsonl, asked, measured_again):
    jsonl([{"question": "1 + 1?", "answer": "2"}] * 310, "test.jsonl")
    jsonl([{"question": "2 + 2?", "answer": "4"}] * 16, "train.jsonl")
    run = tmp_path / "run"
    run.mkdir()
    (run / "settings.json").write_text(json.dumps({"settings": {"tasks": {"max_test_rows": asked}}}))
    args = HybridGRPOConfig("unused", use_cpu=True, report_to="none", max_completion_length=40, max_steps=10)
    tasks = TaskArguments(dataset_name=str(tmp_path))
    _, test = checked_splits(tasks, args, ModelConfig(POLICY), verifier, str(run / "checkpoint-5"))
    assert (test and len(test)) == measured_again
    assert tasks.max_test_rows == asked


def with_template(folder, template):
    shutil.copytree(POLICY, folder)
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
OWN = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a bot.<|im_end|>\n{% endif %}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
# Llama's writes the day into a system block of its own, around what is given.
DATED = "<s>system\nToday is a day.\n\n{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}</s>?"


@pytest.mark.parametrize(
    ("template", "own"),
    [(CHATML, None), (OWN + CHATML, "You are a bot."), (REFUSES + CHATML, None), (DATED, None)],
    ids=["plain", "own", "refuses", "dated"],
)  # fmt: skip
def test_system_message_that_the_template_writes_by_itself(tmp_path, template, own):
    reader = PromptReader(with_template(tmp_path / "it", template), max_completion_length=40)
    assert reader.own_system_message() == own


def test_it_is_said_where_none_is_given(verifier, tmp_path, capsys):
    policy = with_template(tmp_path / "it", OWN + CHATML)
    measured(verifier, policy=policy)
    assert "none is given, and the policy's template writes its own: 'You are a bot.'" in capsys.readouterr().out
    measured(verifier, policy=policy, system_prompt="Add in \\boxed{}.")
    measured(verifier)
    assert "writes its own" not in capsys.readouterr().out


def test_as_many_are_measured_as_the_epochs_pay_for(folder, jsonl, verifier, capsys):
    jsonl([{"question": f"{i}?", "answer": "1"} for i in range(30)], "test.jsonl")

    def measured(epochs, checkpoint=None):
        args = HybridGRPOConfig(
            "unused", use_cpu=True, report_to="none", max_completion_length=400, num_generations=8,
            per_device_train_batch_size=8, num_train_epochs=epochs,
        )  # fmt: skip
        _, test = checked_splits(TaskArguments(dataset_name=folder), args, ModelConfig(POLICY), verifier, checkpoint)
        assert test is not None
        return len(test)

    # 3 problems that can be judged x 8 completions x 15 epochs = 360, two passes of nine answers each: 20.
    assert measured(15) == 20
    assert "Of 30 held-out problems 20 are measured" in capsys.readouterr().out
    assert measured(15, checkpoint=f"{folder}/checkpoint-1") == 20  # of a run without its settings
    capsys.readouterr()
    assert measured(100) == 30
    assert "are measured" not in capsys.readouterr().out


def test_no_more_is_measured_than_the_bound_where_none_is_named(folder, monkeypatch):
    monkeypatch.setattr(splits, "MOST", 2)
    assert len(load_splits(TaskArguments(dataset_name=folder), 0)[1]) == 2


def test_what_is_held_out_is_named_and_mapped_as_what_is_trained_on(monkeypatch):
    asked = []
    for name in ("load", "load_held_out"):
        monkeypatch.setattr(TaskSource, name, lambda source: asked.append(source))
    tasks = TaskArguments(
        dataset_name="own/data", dataset_config="main", dataset_prompt_column="p", dataset_solution_column="s",
        system_prompt="Think.", max_question_chars=9, max_rows=7, max_test_rows=5, dataset_streaming=True,
    )  # fmt: skip
    load_splits(tasks, 0)
    assert asked == [
        TaskSource("own/data", "main", "train", True, "Think.", 9, 7, "p", "s"),
        TaskSource("own/data", "main", "test", True, "Think.", 9, 5, "p", "s"),
    ]


def test_parts_of_a_mixture_are_streamed_where_that_is_asked_for(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(splits, "load_mixture", lambda parts, source, *args: asked.append(source.streaming))
    for streaming in (False, True):
        load_splits(TaskArguments(datasets=[DatasetConfig(folder)], dataset_streaming=streaming), 0)
    assert asked == [False, True]
    parts = [DatasetConfig(folder, split=split) for split in ("train", "test")]
    assert train_location(TaskArguments(datasets=parts)) == ", ".join(
        split_location(folder, split) for split in ("train", "test")
    )
