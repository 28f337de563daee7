"""What is released, built from the checkout: hatchling must be installed."""

import importlib.util
import subprocess
import sys

import pytest


def wheel_in(folder):
    return _built(folder, "wheel", "trl_hybrid-*.whl")


def sdist_in(folder):
    return _built(folder, "sdist", "trl_hybrid-*.tar.gz")


def _built(folder, target, pattern):
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, check=True, timeout=100, capture_output=True)
    return next(folder.glob(pattern))
