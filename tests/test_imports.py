"""The picture of the house: who imports whom, and what an import costs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest


PACKAGE = Path("trl_hybrid")
ROOMS = ("verifier", "reward_model", "hybrid")


def imported_modules(file):
    """Yield the modules of this package that a file imports, as dotted names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("trl_hybrid"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            if node.module and node.module.startswith("trl_hybrid"):
                yield node.module


@pytest.mark.parametrize("room", ROOMS)
def test_the_three_rooms_know_nothing_of_the_rest(room):
    files = list((PACKAGE / room).glob("*.py"))
    assert files
    strangers = {(str(f), m) for f in files for m in imported_modules(f) if not m.startswith(f"trl_hybrid.{room}")}
    assert strangers == set()


def test_nothing_below_imports_the_trainer_or_the_command_line():
    above = {"trl_hybrid.trainer", "trl_hybrid.cli"}
    allowed = {PACKAGE / "__init__.py", PACKAGE / "trainer.py", PACKAGE / "cli.py"}
    for file in set(PACKAGE.rglob("*.py")) - allowed:
        assert above.isdisjoint(imported_modules(file)), file


def test_recipes_import_no_private_names():
    for file in Path("recipes").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trl_hybrid"):
                assert not any(alias.name.startswith("_") for alias in node.names), file


@pytest.mark.parametrize("statement", ["import trl_hybrid", "import trl_hybrid.cli", "import trl_hybrid.verifier"])
def test_cheap_imports_load_neither_torch_nor_transformers(statement):
    code = f"{statement}; import sys; print({{'torch', 'transformers', 'trl', 'datasets'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "command", ["", "init", "check", "plan", "eval", "report", "push", "verify", "score", "configs"]
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


def test_every_public_name_is_there():
    import trl_hybrid

    assert all(hasattr(trl_hybrid, name) for name in trl_hybrid.__all__)
    assert not hasattr(trl_hybrid, "no_such_name")
