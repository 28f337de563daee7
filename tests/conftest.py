"""Settings shared by all tests: offline, one thread a process, reproducible property tests."""

import importlib.util
import json
import os
import subprocess
import sys


# Before anything imports huggingface_hub: a test that reaches for the network fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Two threads a process on two busy cores spend their time waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import Phase, settings


# Scripts for processes that tests launch; they import each other from their own folder.
collect_ignore = ["launch"]

settings.register_profile("offline", deadline=None, derandomize=True, print_blob=True)
# For scripts/mutants.py, which asks thousands of times, and only whether a test fails.
settings.register_profile(
    "mutants", settings.get_profile("offline"), max_examples=30, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("offline")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel that is built from the checkout."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, check=True, timeout=100, capture_output=True)
    return next(folder.glob("trl_hybrid-*.whl"))


@pytest.fixture(scope="module")
def policy():
    """The embedded policy, in evaluation mode."""
    import torch  # only for the tests that need it
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained("data/embedded_policy", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer():
    """The embedded policy's tokenizer, with a padding token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("data/embedded_policy")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="module")
def verifier():
    """A verifier for tests that do not look at its processes."""
    from trl_hybrid.verifier import MathVerifier

    with MathVerifier(num_workers=1) as verifier:
        yield verifier


@pytest.fixture
def jsonl(tmp_path):
    """Write rows to a .jsonl file and return its path."""

    def write(rows, name="tasks.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.fixture(scope="module")
def sft():
    """The cold start's recipe as a module."""
    return _recipe("tinyllama_sft")


@pytest.fixture(scope="module")
def reward_recipe():
    """The recipe that trains a reward model, as a module."""
    return _recipe("train_reward_model")


def _recipe(name):
    spec = importlib.util.spec_from_file_location(name, f"recipes/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
