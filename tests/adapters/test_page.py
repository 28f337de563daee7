"""What docs/adapters.md says is there: variables, options, names, files and versions."""

import ast
import re
import shlex
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from trl.scripts.grpo import make_parser

from trl_hybrid.rewards import JudgeSettings, variable_of


PAGE = Path("docs/adapters.md").read_text()
BLOCKS = re.findall(r"```(?:bash|yaml|toml|python)\n(.*?)```", PAGE, re.DOTALL)


def names_of(file):
    """What a module defines or imports, without importing it."""
    for node in ast.parse(file.read_text()).body:
        yield from (target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def test_the_table_has_every_variable_and_its_default():
    table = dict(re.findall(r"^\| `(TRL_HYBRID_\w+)` \| (\S+) \|", PAGE, re.M))
    assert table == {
        variable_of(field.name): f"`{field.default}`".replace("``", "none") for field in fields(JudgeSettings)
    }


def test_trls_command_takes_the_line():
    (command,) = [block for block in BLOCKS if "trl grpo" in block]
    words = shlex.split(command.partition("trl grpo")[2].replace("\\\n", " "))
    *_, left = make_parser().parse_args_and_config(
        [*words, "--use_cpu", "True", "--bf16", "False"], return_remaining_strings=True
    )
    assert not left
    (path,) = re.findall(r"--reward_funcs (\S+)", command)
    module, _, name = path.rpartition(".")
    assert callable(getattr(import_module(module), name))


def test_every_dotted_name_and_file_is_there():
    paths = re.findall(r"(?:from )?(trl_hybrid[\w.]+)(?: import (\w+))?", "".join(BLOCKS))
    found = set()
    for path, imported in paths:
        module, _, name = path.rpartition(".") if not imported else (path, None, imported)
        whole = Path(f"{path.replace('.', '/')}.py")
        if whole.exists() and not imported:  # verl's path of a package's module
            found.add(whole.stem)
        elif path != "trl_hybrid.adapters":
            file = Path(f"{module.replace('.', '/')}.py")
            assert name in names_of(file), (path, imported)
            found.add(file.stem)
    for name in re.findall(r"trl_hybrid\.adapters\)/(\w+)\.py", PAGE):
        assert Path(f"trl_hybrid/adapters/{name}.py").exists()
        found.add(name)
    adapters = {file.stem for file in Path("trl_hybrid/adapters").glob("*_*.py") if not file.stem.startswith("__")}
    assert adapters <= found


@pytest.mark.parametrize("file", sorted(Path("trl_hybrid/adapters").glob("[a-z]*.py")), ids=lambda file: file.stem)
def test_the_version_on_the_page_is_that_of_the_adapter(file):
    package, version = re.search(r"Looked at with ([\w-]+) ([\d.]+\d)", file.read_text()).groups()
    names = {"lm-eval": "lm-evaluation-harness"}
    assert f"**{names.get(package, package)}** ({version})" in PAGE
