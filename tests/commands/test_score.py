"""`trl-hybrid score` scores a file as a user has it, and goes on where it was stopped."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from trl_hybrid.cli import main, parse
from trl_hybrid.commands.score import IN_HELP, PREFIX
from trl_hybrid.recipe.options import JudgeArguments
from trl_hybrid.reward_model import RewardModel


FOLDER = Path("data/embedded_reward_model")
SYSTEM_PROMPT = "Please reason step by step, and check your final answer within \\boxed{}."
QUESTION = "What is 286 + 859?"
MESSAGES = [{"role": "user", "content": QUESTION}]
ROWS = [
    {"prompt": QUESTION, "completion": f"286 + 859 = {a} The answer is \\boxed{{{b}}}", "id": f"é\u2028{a}"}
    for a, b in [(1145, 1145), (1145, 1144), (1044, 1044), (3, 1145), (1, 2), (1145, 7), (20, 20), (6, 61), (5, 5)]
] + [
    {"prompt": MESSAGES, "completion": [{"role": "assistant", "content": "\\boxed{1145}"}]},
    {"prompt": QUESTION, "completion": "286 + 859 = 1145 The answer is \\boxed{1145}", "truncated": True},
]


KILLED_AFTER_FIVE = """
import os, signal, sys
from tqdm.auto import tqdm
from trl_hybrid.cli import main

saved = []
def update(bar, rows):  # called when a batch is saved
    saved.append(rows)
    if len(saved) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
tqdm.update = update
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def model():
    return RewardModel(str(FOLDER), system_prompt=SYSTEM_PROMPT)


@pytest.fixture
def folder(tmp_path):
    """A copy of the reward model that a test may change."""
    return Path(shutil.copytree(FOLDER, tmp_path / "rm"))


def change(folder, name, edit):
    """Change one weight of a saved model."""
    weights = load_file(folder / "model.safetensors")
    edit(weights[name])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def command(tmp_path, *options, name=FOLDER, output="scores.jsonl"):
    files = ["--completions", tmp_path / "c.jsonl", "--output", tmp_path / output, "--batch_size", 4]
    judge = ["--reward_model_name_or_path", name, "--reward_model_system_prompt", SYSTEM_PROMPT]
    return [str(part) for part in ["score", *files, *judge, *options]]


def score(tmp_path, *options, **kwargs):
    return main(command(tmp_path, *options, **kwargs))


def refused(capsys, tmp_path, *options, **kwargs):
    """Return what is said by a run that must end with status 2."""
    with pytest.raises(SystemExit) as stop:
        score(tmp_path, *options, **kwargs)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_scores_are_those_of_the_rows_one_by_one(tmp_path, model, capsys):
    write(tmp_path / "c.jsonl", ROWS)
    assert score(tmp_path) == 0
    scored = read(tmp_path / "scores.jsonl")
    made_by = {"name_or_path": str(FOLDER), "system_prompt": SYSTEM_PROMPT}
    assert [{**row, "reward_model": made_by} for row in ROWS] == [
        {name: value for name, value in row.items() if name != "score"} for row in scored
    ]
    alone = [model.compute_reward(row["prompt"], row["completion"]) for row in ROWS[:-1]]
    assert [row["score"] for row in scored[:-1]] == pytest.approx(alone, abs=1e-5)
    said = capsys.readouterr().out.splitlines()
    scores = torch.tensor([row["score"] for row in scored], dtype=torch.float64)
    assert "rows                   11" in said
    assert f"mean             {scores.mean():8.4f}" in said
    assert f"sd               {scores.std(correction=0):8.4f}" in said
    assert f"max              {scores.max():8.4f}" in said
    assert "not finite              0" in said


def test_a_cut_off_completion_is_left_open(tmp_path, model):
    write(tmp_path / "c.jsonl", [{**ROWS[0], "truncated": mark} for mark in (True, False)])
    score(tmp_path)
    cut_off, finished = [row["score"] for row in read(tmp_path / "scores.jsonl")]
    again = model([QUESTION] * 2, [ROWS[0]["completion"]] * 2, completion_truncated=[True, False])
    assert [cut_off, finished] == pytest.approx(again, abs=1e-5)
    assert abs(cut_off - finished) > 0.1


def test_shortened_rows_are_counted(tmp_path, capsys):
    short, long = "\\boxed{1145}", "286 + 859 = 1145 The answer is \\boxed{1145}"
    write(tmp_path / "c.jsonl", [{"prompt": QUESTION, "completion": text} for text in (short, long)])
    chat = [{"role": "system", "content": SYSTEM_PROMPT}, *MESSAGES, {"role": "assistant", "content": short}]
    text = AutoTokenizer.from_pretrained(FOLDER).apply_chat_template(chat, tokenize=False)
    fits = len(AutoTokenizer.from_pretrained(FOLDER)(text, add_special_tokens=False)["input_ids"])
    score(tmp_path, "--reward_model_max_length", fits)
    assert "shortened to fit        1   of them" in capsys.readouterr().out


class TestGoingOn:
    @pytest.fixture
    def whole(self, tmp_path):
        """The file of an unbroken run."""
        write(tmp_path / "c.jsonl", ROWS)
        score(tmp_path, output="whole.jsonl")
        return (tmp_path / "whole.jsonl").read_bytes()

    def test_after_an_interruption_the_file_is_that_of_an_unbroken_run(self, tmp_path, whole, monkeypatch, capsys):
        scoring, calls = RewardModel.__call__, []

        def interrupted(*args, **kwargs):
            calls.append(args)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return scoring(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(RewardModel, "__call__", interrupted)
            assert score(tmp_path) == 130
        assert "without --overwrite, goes on after the rows that are saved" in capsys.readouterr().err
        assert read(tmp_path / "scores.jsonl") == [json.loads(line) for line in whole.split(b"\n")[:8]]
        assert score(tmp_path) == 0
        assert "Going on after row 8 of 11." in capsys.readouterr().out
        assert (tmp_path / "scores.jsonl").read_bytes() == whole

    def test_after_a_kill_the_file_is_that_of_an_unbroken_run(self, tmp_path):
        rows = [{"prompt": f"What is {n} + {n}?", "completion": f"\\boxed{{{2 * n}}}"} for n in range(12)]
        write(tmp_path / "c.jsonl", rows)
        output = tmp_path / "scores.jsonl"
        single = command(tmp_path, "--batch_size", 1)
        assert subprocess.run([sys.executable, "-c", KILLED_AFTER_FIVE, *single]).returncode == -signal.SIGKILL
        assert output.read_bytes().count(b"\n") == 5
        assert main(single) == 0
        assert main(command(tmp_path, "--batch_size", 1, output="whole.jsonl")) == 0
        assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()

    @pytest.mark.parametrize("lost", [1, 30, 240])
    def test_a_torn_last_line_is_scored_anew(self, tmp_path, whole, lost, capsys):
        lines = whole.splitlines(keepends=True)
        (tmp_path / "scores.jsonl").write_bytes(b"".join(lines[:6])[:-lost])
        assert score(tmp_path) == 0
        assert "Going on after row 5 of 11." in capsys.readouterr().out
        again = (tmp_path / "scores.jsonl").read_bytes().splitlines(keepends=True)
        assert again[:5] + again[8:] == lines[:5] + lines[8:]
        for mine, theirs in zip(again[5:8], lines[5:8], strict=True):  # their batch has one row more
            assert json.loads(mine)["score"] == pytest.approx(json.loads(theirs)["score"], abs=1e-5)

    def test_rows_added_to_the_completions_are_added_to_the_scores(self, tmp_path, whole):
        write(tmp_path / "c.jsonl", ROWS[:4])
        score(tmp_path)
        write(tmp_path / "c.jsonl", ROWS)
        score(tmp_path)
        assert (tmp_path / "scores.jsonl").read_bytes() == whole

    def test_a_finished_file_needs_no_model(self, tmp_path, folder, capsys):
        write(tmp_path / "c.jsonl", ROWS)
        score(tmp_path, name=folder)
        first = capsys.readouterr().out
        shutil.rmtree(folder)
        assert score(tmp_path, name=folder) == 0
        again = capsys.readouterr().out
        assert "All 11 rows are scored already." in again
        assert again.splitlines()[1:] == first.splitlines()[2:]


class TestAnOutputOfSomethingElse:
    @pytest.fixture
    def output(self, tmp_path):
        write(tmp_path / "c.jsonl", ROWS[:6])
        score(tmp_path)
        write(tmp_path / "c.jsonl", ROWS)
        return tmp_path / "scores.jsonl"

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            ([*ROWS[:2], ROWS[3], ROWS[2], *ROWS[4:]], "Row 3 of"),
            ([ROWS[0], {**ROWS[1], "prompt": "other"}, *ROWS[2:]], "its `prompt` differs"),
            ([ROWS[0], {**ROWS[1], "id": 7}, *ROWS[2:]], "its `id` differs"),
            ([ROWS[0], {**ROWS[1], "truncated": True}, *ROWS[2:]], "its `truncated` differs"),
            (ROWS[:5], "Row 6 of"),
        ],
    )
    def test_other_rows_are_refused_by_the_first_that_differs(self, tmp_path, capsys, output, rows, said):
        before = output.read_bytes()
        write(tmp_path / "c.jsonl", rows)
        message = refused(capsys, tmp_path)
        assert said in message
        assert "--overwrite" in message
        assert output.read_bytes() == before

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"my notes", "it is b'my notes'"),
            (b'{"question": "x"}\n', "it has no score"),
            ((json.dumps(ROWS[0], ensure_ascii=False)[:-1] + ', "score": null}\n').encode(), "is not as"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path, capsys, content, said):
        write(tmp_path / "c.jsonl", ROWS)
        (tmp_path / "scores.jsonl").write_bytes(content)
        assert said in refused(capsys, tmp_path)
        assert (tmp_path / "scores.jsonl").read_bytes() == content

    @pytest.mark.parametrize("option", [["--reward_model_max_length", 500], ["--reward_model_dtype", "bfloat16"]])
    def test_scores_of_another_setting_are_refused(self, tmp_path, capsys, output, option):
        before = output.read_bytes()
        assert "must be of one reward model, but row 1" in refused(capsys, tmp_path, *option)
        assert output.read_bytes() == before

    def test_scores_of_other_weights_under_the_same_name_are_refused(self, tmp_path, capsys, folder):
        write(tmp_path / "c.jsonl", ROWS[:6])
        score(tmp_path, name=folder)
        write(tmp_path / "c.jsonl", ROWS)
        before = (tmp_path / "scores.jsonl").read_bytes()
        change(folder, "score.weight", lambda weight: weight.mul_(1.5))
        assert "are not what they were" in refused(capsys, tmp_path, name=folder)
        assert (tmp_path / "scores.jsonl").read_bytes() == before

    def test_how_the_model_is_run_may_change(self, tmp_path, output):
        assert score(tmp_path, "--reward_model_token_budget", 100) == 0
        assert len(read(output)) == len(ROWS)

    def test_it_is_written_over_when_asked_for(self, tmp_path, output):
        output.write_text("my notes")
        assert score(tmp_path, "--overwrite") == 0
        assert len(read(output)) == len(ROWS)

    def test_it_is_kept_when_the_new_model_cannot_be_had(self, tmp_path, capsys, output):
        before = output.read_bytes()
        assert "there is none" in refused(capsys, tmp_path, "--overwrite", name=tmp_path / "none")
        assert output.read_bytes() == before


def test_scores_that_are_not_finite_are_null_and_told(tmp_path, folder, capsys):
    token = AutoTokenizer.from_pretrained(FOLDER)("9", add_special_tokens=False)["input_ids"][-1]
    change(folder, "model.embed_tokens.weight", lambda weight: weight[token].fill_(float("nan")))
    prompts = ["What is 2 + 2?", "What is 9 + 2?", "What is 3 + 2?", "What is 9 + 3?", "What is 3 + 3?"]
    rows = [{"prompt": prompt, "completion": "\\boxed{4}"} for prompt in prompts]
    write(tmp_path / "c.jsonl", rows[:4])
    assert score(tmp_path, name=folder) == 1
    write(tmp_path / "c.jsonl", rows)
    assert score(tmp_path, name=folder) == 1
    scored = read(tmp_path / "scores.jsonl")
    assert [row["score"] is None for row in scored] == [False, True, False, True, False]
    assert [row.get("nonfinite") for row in scored] == [None, "nan", None, "nan", None]
    said = capsys.readouterr()
    assert "not finite              2" in said.out
    assert "2 of 5 scores are not finite: null in the output" in said.err


GOOD = '{"prompt": "x", "completion": "y"}\n'


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (GOOD + '{"prompt": "x"', [], "Line 2"),
        ('{"completion": "x"}', [], "must be a JSON object with `prompt` and `completion`, got"),
        ("\n", [], "holds no rows"),
        ("é".encode("latin-1"), [], "must be UTF-8"),
        ('{"prompt": 3, "completion": "x"}', [], "Row 1"),
        ('{"prompt": [], "completion": "x"}', [], "as `prompt`"),
        (GOOD + '{"prompt": "x", "completion": ["a", "b"]}', [], "as `completion`"),
        ('{"prompt": "x", "completion": "y", "truncated": "no"}', [], "true or false as `truncated`, got 'no'"),
        ('{"prompt": "x", "completion": "y", "score": 1}', [], "has `score`, which the command would write over"),
        ('{"prompt": "x", "completion": "half a pair: \\ud83d"}', [], "must be text that UTF-8 can hold"),
        (GOOD, ["--batch_size", 0], "--batch_size must be at least 1, got 0"),
        (GOOD, ["--output", "data"], "--output must be a file, got 'data'"),
        (GOOD, ["--output", "data/none/s.jsonl"], "The folder 'data/none' of --output does not exist"),
        (GOOD, ["--completions", "none.jsonl"], "'none.jsonl' does not exist"),
        (GOOD, ["--reward_model_name_or_path", "./none"], "there is none"),
        (
            GOOD + '{"prompt": [{"role": "system", "content": "z"}], "completion": "y"}',
            [],
            "In the rows 1 to 2: A prompt",
        ),
    ],
)
def test_bad_input_says_the_rule_and_exits_with_2(tmp_path, capsys, content, options, said):
    (tmp_path / "c.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said in refused(capsys, tmp_path, *options)


def test_the_completions_are_not_written_over(tmp_path, capsys):
    before = write(tmp_path / "c.jsonl", ROWS).read_bytes()
    said = refused(capsys, tmp_path, "--overwrite", output="c.jsonl")
    assert "another file than --completions" in said
    assert (tmp_path / "c.jsonl").read_bytes() == before


def test_several_processes_are_refused(tmp_path, capsys, monkeypatch):
    write(tmp_path / "c.jsonl", ROWS)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "Start it without `accelerate launch`" in refused(capsys, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_an_output_that_cannot_be_written_costs_no_scoring(tmp_path, capsys):
    write(tmp_path / "c.jsonl", ROWS)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert "--output must be writable" in refused(capsys, tmp_path, output="closed/scores.jsonl")


def test_help_shows_what_a_first_use_needs_and_all_options_of_the_reward_model_are_taken(capsys):
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    said = "".join(capsys.readouterr().out.split())
    options = {field.name: field for field in dataclasses.fields(JudgeArguments) if field.name.startswith(PREFIX)}
    shown = {name for name in options if f"--{name}" in said}
    assert shown == {*IN_HELP}
    for name in shown:
        assert "".join(options[name].metadata["help"].rstrip(".").split()) in said
    parsed = parse(["score", "--completions", "a", "--output", "b"])
    assert {name: getattr(parsed, name) for name in options} == {n: field.default for n, field in options.items()}
