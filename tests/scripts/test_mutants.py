"""The mutation run on a project of four functions: what it finds, and what it says of it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


SCRIPT = Path("scripts/mutants.py").resolve()
PROJECT = {
    "torch.py": """
def no_grad():
    return lambda function: function
""",
    "toys/sums.py": """
import torch


def doubled(x):
    return 2 * x


def increased(x):
    return 3 + x


@torch.no_grad()
def decreased(x):
    return x - 1


def positive(x):
    return x if x > 0 else 0
""",
    "tests/test_sums.py": """
from toys.sums import decreased, doubled, increased, positive


def test_sums():
    assert (doubled(2), doubled(3), decreased(2), positive(-1), positive(1)) == (4, 6, 1, 0, 1)
    assert increased(0)
""",
    "tests/conftest.py": """
from hypothesis import settings

settings.register_profile("mutants")
""",
    "tests/equal_mutants.toml": """
["toys.sums.positive"]
"return x if x > 0 else 0 => return x if x >= 0 else 0" = "0 is 0."
""",
    "pyproject.toml": """
[tool.mutmut]
source_paths = ["toys"]

[tool.mutants]
survivors = 0.05
left_alone = []

[tool.mutants.tests]
"toys/*.py" = ["tests"]
""",
}


@pytest.fixture
def project(tmp_path):
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def run(project):
    return subprocess.run([sys.executable, SCRIPT, "--jobs", "2"], cwd=project, capture_output=True, text=True)


def test_survivors_are_shown_and_equal_ones_do_not_count(project):
    """Killed: 2 * x twice, x - 1 twice, and x > 0 with 1 for 0, always true, never true, and 1 for the other 0."""
    result = run(project)
    assert result.returncode == 1, result.stdout + result.stderr
    survivors, _, table = result.stdout.partition("\n\n")
    assert sorted(survivors.splitlines()) == sorted(
        [*["toys.sums.increased"] * 2, "    return 3 + x => return 3 - x", "    return 3 + x => return 4 + x"]
    )
    counts = "toys/sums.py 8 killed 0 hung 2 survived 1 equal"
    assert counts in " ".join(table.split())
    assert result.stdout.endswith("20.0% of 10 mutants survive.\n")
    assert (project / "toys" / "sums.py").read_text() == PROJECT["toys/sums.py"]


def test_tests_that_fail_by_themselves_say_nothing_about_mutants(project):
    with (project / "tests" / "test_sums.py").open("a") as tests:
        tests.write("    assert increased(1) == 5\n")
    result = run(project)
    assert result.returncode == 2
    assert "tests/test_sums.py::test_sums fails without a mutant" in result.stderr


def test_the_modules_that_are_mutated_and_their_tests_are_there():
    tests = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutants"]["tests"]
    for module, own in tests.items():
        assert list(Path().glob(module)), module
        for test in own:
            file, *names = test.split("::")
            assert Path(file).exists(), test
            assert all(name in Path(file).read_text() for name in names), test


def test_what_is_said_to_make_no_difference_is_said_of_lines_that_are_there():
    for function, changes in tomllib.loads(Path("tests/equal_mutants.toml").read_text()).items():
        parts = function.split(".")
        modules = [Path(*parts[:n]).with_suffix(".py") for n in range(1, len(parts))]
        module = next((file for file in modules if file.is_file()), None)
        assert module is not None, function
        source = " ".join(module.read_text().split())
        names = parts[len(module.parts) :]
        assert all(re.search(rf"(def|class) {name}\b", source) for name in names), function
        for change in changes:
            assert " ".join(change.split(" => ")[0].split()) in source, f"{function}: {change}"
