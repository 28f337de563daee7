"""A command takes whole options only, by the recipe's names for them, and answers for itself."""

import argparse

import pytest

from trl_hybrid.cli import COMMANDS, main, parse


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["eval", "--model", "data/embedded_policy", "--bas"], "--bas (did you mean --base?)"),
        (["push", "runs/embedded", "--priv"], "--priv (did you mean --private?)"),
        (["report", "runs/embedded", "--colour", "red"], "--colour red"),
        (["report", "runs/x", "--max-completions", "5"], "--max-completions 5 (did you mean --max_completions?)"),
        (
            ["verify", "--completions", "c", "--verifier-timeout=2"],
            "--verifier-timeout=2 (did you mean --verifier_timeout?)",
        ),
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
        ("eval --model_name_or_path=a-b", "model", "a-b"),
        ("eval --model a --reward_model_name_or_path r", "reward_model", "r"),
        ("eval --model a --model_revision v1", "model_revision", "v1"),
        ("eval --model a --dataset_test_split train[:5]", "dataset_split", "train[:5]"),
        ("eval --model a --batch_size 3", "batch_size", 3),
        ("score --completions c --output o --reward_model_name_or_path r", "reward_model_name_or_path", "r"),
        ("score --completions c --output o --reward_model_system_prompt=--x-y", "reward_model_system_prompt", "--x-y"),
        ("verify --completions c --verifier_timeout 1", "verifier_timeout", 1.0),
        ("verify --completions c --verifier_num_workers 2", "verifier_num_workers", 2),
        ("push runs/x --hub_model_id a/b", "hub_model_id", "a/b"),
        ("push runs/x --hub_revision second", "hub_revision", "second"),
        ("push runs/x --hub_private_repo", "private", True),
        ("plan --gpu_memory 24 --prompt_tokens 3", "gpu_memory", 24.0),
        ("plan --model_name_or_path a", "recipe_options", ["--model_name_or_path", "a"]),
        ("check --no --reward_model_placement cpu", "recipe_options", ["--reward_model_placement", "cpu"]),
        ("report runs/x --max_completions 5", "max_completions", 5),
    ],
)
def test_the_recipes_name_of_an_option_works_in_every_command(command, name, value):
    assert getattr(parse(command.split()), name) == value


def test_options_are_written_with_underscores():
    for command in COMMANDS.values():
        parser = argparse.ArgumentParser()
        command.add_options(parser)
        names = [name for action in parser._actions for name in action.option_strings]
        assert not [name for name in names if "-" in name.removeprefix("--").removeprefix("-")]
