"""The picture of the house: who imports whom, and what an import costs."""

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from report_runs import write_history, write_settings


PACKAGE = Path("trl_hybrid")
ROOMS = {
    "errors": "",
    "shipped": "",
    "judges": "",
    "verifier": "errors",
    "packing": "",
    "reward_model": "errors packing shipped",
    "hybrid": "errors judges",
    "models": "errors reward_model",
    "runs": "errors models",
    "data": "errors runs verifier",
    "policy": "errors models packing reward_model runs",
    "evaluation": "data errors policy verifier",
    "training": "data errors evaluation hybrid judges packing policy runs verifier",
    "memory": "errors reward_model training",
    "report": "errors judges runs",
    "hub": "data errors models policy report reward_model runs verifier",
    "recipe": "data errors evaluation hub memory models policy report reward_model runs training verifier",
    "checks": "data errors hybrid memory models packing recipe reward_model shipped training verifier",
    "commands": "checks data errors evaluation hub memory models policy recipe report reward_model runs shipped "
    "training verifier",
    "rewards": "errors hybrid reward_model verifier",
    "adapters": "data errors rewards verifier",
    "cli": "commands errors",
}
"""Each room, and those that it may import: they stand above it here, so that imports run one way."""


def imported_modules(file):
    """Yield the modules of this package that a file imports, as dotted names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("trl_hybrid"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            if node.module and node.module.startswith("trl_hybrid"):
                yield node.module


def room_of(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_rooms_import_only_those_above_them():
    rooms = list(ROOMS)
    for room, allowed in ROOMS.items():
        assert set(allowed.split()) <= set(rooms[: rooms.index(room)]), f"{room} stands before a room that it imports"
    for file in PACKAGE.rglob("*.py"):
        room = room_of(file)
        if room == "__init__":
            continue
        for module in imported_modules(file):
            other = module.split(".")[1]
            assert other == room or other in ROOMS[room].split(), f"{file} imports {module}"


def test_nothing_but_the_entries_lies_loose():
    names = "__init__ cli errors judges rewards shipped"
    assert {file.stem for file in PACKAGE.glob("*.py")} == set(names.split())


def test_recipes_import_public_names_only():
    for file in Path("recipes").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not (isinstance(node, ast.Import) and any("." in name for name in names)), file
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trl_hybrid"):
                assert node.module in ("trl_hybrid", "trl_hybrid.recipe"), f"{file} imports {node.module}"
                assert set(names) <= set(import_module(node.module).__all__), file


@pytest.mark.parametrize(
    ("recipe", "lines"), [("tinyllama_grpo", 65), ("tinyllama_sft", 95), ("train_reward_model", 90)]
)
def test_recipes_are_read_in_a_minute(recipe, lines):
    assert len(Path(f"recipes/{recipe}.py").read_text().splitlines()) <= lines


@pytest.mark.parametrize(
    "statement",
    [f"import trl_hybrid{room}" for room in ("", ".cli", ".data", ".recipe", ".report", ".rewards", ".verifier")],
)
def test_cheap_imports_load_neither_torch_nor_transformers(statement):
    code = f"{statement}; import sys; print({{'torch', 'transformers', 'trl', 'datasets'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "command", ["", "init", "check", "plan", "eval", "report", "push", "verify", "score", "configs", "serve-command"]
)
def test_help_is_cheap_fits_a_screen_and_has_an_example(command):
    code = (
        "import contextlib, sys; from trl_hybrid.cli import main\n"
        f"with contextlib.suppress(SystemExit): main([*{[command] if command else []}, '--help'])\n"
        "print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    environment = {**os.environ, "COLUMNS": "110"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    *text, loaded = result.stdout.splitlines()
    assert loaded == "set()"
    assert len(text) <= 45
    assert f"  trl-hybrid {command}".rstrip() in "\n".join(text).partition("examples")[2]


@pytest.mark.parametrize("command", ["verify", "report"])
def test_what_needs_no_model_runs_without_torch(command, tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"completion": "It is 12.", "answer": "12"}\n')
    write_settings(tmp_path)
    write_history(tmp_path, 4)
    words = {"verify": ["--completions", str(tmp_path / "answers.jsonl")], "report": [str(tmp_path)]}[command]
    code = (
        f"import sys; from trl_hybrid.cli import main; main({[command, *words]})\n"
        "print({'torch', 'transformers', 'trl', 'datasets', 'accelerate', 'peft'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("module", ["trl_hybrid", "trl_hybrid.recipe", "trl_hybrid.data", "trl_hybrid.report"])
def test_every_public_name_is_there(module):
    public = import_module(module)
    assert all(hasattr(public, name) for name in public.__all__)
    assert not hasattr(public, "no_such_name")
