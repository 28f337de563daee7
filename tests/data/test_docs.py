"""The documentation's table is the code's, and its commands are commands."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from trl import ModelConfig

from trl_hybrid import HybridGRPOConfig
from trl_hybrid.data.columns import PROMPT_COLUMNS, SOLUTION_COLUMNS
from trl_hybrid.recipe.options import JudgeArguments, TaskArguments
from trl_hybrid.recipe.parsing import parse_arguments


TEXT = Path("docs/data.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


def test_table_lists_the_columns_in_their_order():
    rows = dict(re.findall(r"^\| (the problem|the gold) \| (.*?) \|", TEXT, re.MULTILINE))
    assert tuple(re.findall(r"`(.*?)`", rows["the problem"])) == PROMPT_COLUMNS
    assert tuple(re.findall(r"`(.*?)`", rows["the gold"])) == SOLUTION_COLUMNS


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(tmp_path, monkeypatch, command):
    launcher, recipe, *args = shlex.split(command)
    assert launcher == "python"
    assert Path(recipe).is_file()
    monkeypatch.chdir(tmp_path)
    (mixture,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    Path("my_mixture.yaml").write_text(mixture)
    classes = (TaskArguments, JudgeArguments, HybridGRPOConfig, ModelConfig)
    tasks = parse_arguments(classes, {"report_to": "none"}, [*args, "--use_cpu"])[0]
    expected = [entry["path"] for entry in yaml.safe_load(mixture)["datasets"]] if "--config" in args else []
    assert [part.path for part in tasks.datasets] == expected
    assert expected or tasks.dataset_name == args[args.index("--dataset_name") + 1]
