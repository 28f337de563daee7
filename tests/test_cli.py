"""A command takes whole options only, and answers for itself."""

import pytest

from trl_hybrid.cli import main, parse
from trl_hybrid.commands.spelling import SAME


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["eval", "--model", "data/embedded_policy", "--bas"], "--bas"),
        (["push", "runs/embedded", "--priv"], "--priv"),
        (["report", "runs/embedded", "--colour", "red"], "--colour red"),
    ],
)
def test_abbreviated_and_unknown_options_are_refused(words, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: trl-hybrid {words[0]}")
    assert said.endswith(f"error: unrecognized arguments: {wrong}\n")


def test_without_a_word_it_shows_its_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("usage: trl-hybrid")
    assert "trl-hybrid init my-project" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("eval --model a --dataset_name d-e --max_rows 3", "dataset_name", "d-e"),
        ("eval --model-name-or-path a-b_c", "model", "a-b_c"),
        ("eval --model_name_or_path=a-b", "model", "a-b"),
        ("eval --model a --reward-model-name-or-path r", "reward_model", "r"),
        ("eval --model a --revision v1", "model_revision", "v1"),
        ("eval --model a --model-revision v1", "model_revision", "v1"),
        ("eval --model a --dataset-test-split train[:5]", "dataset_split", "train[:5]"),
        ("eval --model a --batch-size 3", "batch_size", 3),
        ("score --completions c --output o --reward_model r", "reward_model_name_or_path", "r"),
        ("score --completions c --output o --batch_rows 3", "batch_size", 3),
        ("score --completions c --output o --reward-model-system-prompt=--x-y", "reward_model_system_prompt", "--x-y"),
        ("verify --completions c --timeout 1", "verifier_timeout", 1.0),
        ("verify --completions c --verifier-num-workers 2", "verifier_num_workers", 2),
        ("push runs/x --hub-model-id a/b", "hub_model_id", "a/b"),
        ("push runs/x --revision second", "hub_revision", "second"),
        ("push runs/x --hub_private_repo", "private", True),
        ("plan --gpu-memory 24 --prompt-tokens 3", "gpu_memory", 24.0),
        ("plan --model a", "recipe_options", ["--model_name_or_path", "a"]),
        ("check --no --reward-model-placement cpu", "recipe_options", ["--reward_model_placement", "cpu"]),
        ("report runs/x --max-completions 5", "max_completions", 5),
    ],
)
def test_an_option_has_one_name_in_every_command_with_hyphens_or_underscores(command, name, value):
    assert getattr(parse(command.split()), name) == value


def test_names_of_options_are_those_of_the_recipe_or_of_a_command():
    """Every other name leads to an option that there is."""
    wanted = {"eval": ["--model", "a"], "score": ["--completions", "c", "--output", "o"], "push": ["runs/x"],
              "verify": ["--completions", "c"]}  # fmt: skip
    for command, names in SAME.items():
        for other, known in names.items():
            flag = [] if known == "private" else ["1"]
            parsed = parse([command, *wanted.get(command, []), f"--{other}", *flag])
            assert known in parsed or f"--{known}" in parsed.recipe_options
