"""Every command in the documentation is one that its program takes, and every link leads somewhere."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest
import torch
import trl
from accelerate.commands.launch import launch_command_parser
from trl import ModelConfig, RewardConfig, SFTConfig

import trl_hybrid
from trl_hybrid.cli import parse
from trl_hybrid.commands.recipe_options import parse_recipe_options
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.pair_options import PairArguments
from trl_hybrid.recipe.parsing import parse_arguments
from trl_hybrid.recipe.sft import SamplingArguments


PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), *sorted(Path("docs").glob("*.md"))]
PROGRAMS = ("trl-hybrid", "accelerate launch", "python recipes/")

# TRL's configs set the name that transformers 5.23 renames.


def commands_of(page):
    """Yield the commands of bash blocks, and those between backticks; for `<a>`, `...` and `$(...)` stands x."""
    text = page.read_text()
    blocks = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*blocks, *spans]:
        line = re.sub(r"^(\w+=\S+ )+", "", line.strip())
        if re.match(rf"(?:{'|'.join(PROGRAMS)})(?:(?<=/)| )", line):
            yield re.sub(r'"\$\(.*?\)"|<[^>]*>', "x", line).replace(" ...", "")


COMMANDS = [(page, command) for page in PAGES for command in commands_of(page)]
HUB_COMMANDS = {"plan", "check", "serve-command"}


def test_commands_are_found():
    found = {(page.name, shlex.split(command)[1]) for page, command in COMMANDS}
    assert {("README.md", "eval"), ("README.md", "push"), ("options.md", "launch")} <= found
    assert {(name, "recipes/tinyllama_grpo.py") for name in ("README.md", "data.md")} <= found
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda value: getattr(value, "stem", value))
def test_the_program_takes_the_command(page, command, sft, reward_recipe, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    words = shlex.split(command, comments=True)
    if words[0] == "trl-hybrid":
        if len(words) == 2:  # a name, not a whole command
            words.append("--help")
        if words[-1] == "--help":
            with pytest.raises(SystemExit) as stop:
                parse(words[1:])
            assert stop.value.code == 0
            return
        parsed = parse(words[1:])
        if words[1] in HUB_COMMANDS and len(words) > 2:
            parse_recipe_options(parsed.config, parsed.recipe_options)
        return
    script, options = words[1], words[2:]
    if words[0] == "accelerate":
        launch = launch_command_parser().parse_args(words[2:])
        script, options = launch.training_script, launch.training_script_args
    options = [option for option in options if option != "my_mixture.yaml"]
    if "--config" in options[-1:]:
        options.pop()  # its file stands in the page
    assert Path(script).is_file()
    if "sft" in script:
        classes = (TaskArguments, SamplingArguments, SFTConfig, ModelConfig)
        parse_arguments(classes, sft.DEFAULTS, [*options, "--use_cpu", "true", "--bf16", "false"])
    elif "reward_model" in script:
        classes = (TaskArguments, PairArguments, RewardConfig, ModelConfig)
        parse_arguments(classes, reward_recipe.DEFAULTS, [*options, "--use_cpu", "true", "--bf16", "false"])
    else:
        parse_recipe_options(None, [*options, "--use_cpu", "true"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            file = page.parent / path
            assert file.exists(), target
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M) if anchor else []
            assert not anchor or anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


def test_three_lines_turn_a_grpo_trainer_into_a_hybrid_one():
    diff = re.search(r"```diff\n(.*?)```", Path("README.md").read_text(), re.DOTALL)[1].splitlines()
    before, after = ([line[1:] for line in diff if not line.startswith(sign)] for sign in "+-")
    assert [sum(line[:1] == sign for line in diff) for sign in "-+"] == [3, 3]
    names = {"trl": trl, "trl_hybrid": trl_hybrid}
    for lines, package in ((before, "trl"), (after, "trl_hybrid")):
        statements = ast.parse("\n".join(lines)).body
        assert statements[0].module == package
        assert all(hasattr(names[package], alias.name) for alias in statements[0].names)
        call = next(node for node in ast.walk(statements[2]) if isinstance(node, ast.Call))
        trainer = getattr(names[package], call.func.id)
        inspect.signature(trainer).bind(*call.args, **{keyword.arg: keyword.value for keyword in call.keywords})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):.*##", Path("Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.M)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_between_backticks_exist(page):
    folders = r"(?:recipes|accelerate_configs|benchmarks|docs|tests|trl_hybrid|data)"
    for path in re.findall(rf"`({folders}/[\w./-]+)`", page.read_text()):
        assert Path(path).exists(), path
