"""A real vLLM that serves a tiny reward model on the CPU, for the tests marked `vllm`."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForSequenceClassification


PATIENCE_SECONDS = 900
"""A start takes 45 s on two free cores."""


def make_reward_model(folder):
    """Save a random reward model that speaks as the embedded one does.

    That one's heads are 24 wide: vLLM starts with it on a CPU and dies of the first row ("Unsupported CPU attention
    configuration"). These are 32 wide.
    """
    folder.mkdir(parents=True)
    for file in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path("data/embedded_reward_model") / file, folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=330, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, num_labels=1, pad_token_id=0, eos_token_id=2,
        initializer_range=0.2,
    )  # fmt: skip
    model = Qwen2ForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=0.5)
    model.save_pretrained(folder)
    return str(folder)


class VllmServer:
    """A server process and its children; `end` leaves none of them.

    Args:
        model: The reward model's folder.
        log: File for what it says.
        port: Where it listens, a free one by default; it keeps it when started again.
        environment: More variables.
    """

    def __init__(self, model, log, port=None, **environment):
        self.model, self.log, self.port, self.environment = model, log, port or free_port(), environment
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def begin(self):
        """Start it, without waiting."""
        command = [
            vllm_command(), "serve", self.model, "--runner", "pooling", "--convert", "classify", "--dtype", "float32",
            "--max-model-len", "1024", "--host", "127.0.0.1", "--port", str(self.port), "--enforce-eager",
        ]  # fmt: skip
        own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, **own, **self.environment},
            )  # fmt: skip
        return self

    def wait(self):
        """Wait until it answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return self
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        self.end()
        raise AssertionError(f"vLLM did not start:\n{Path(self.log).read_text()[-5000:]}")

    def send(self, number):
        """Send a signal to all of its processes."""
        os.killpg(self.process.pid, number)

    def end(self):
        """End all of its processes, however they are, and wait."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGKILL)
            self.process.wait()


def vllm_command():
    """Find vLLM beside this Python, or on the path."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("vllm", path=os.pathsep.join([beside, os.environ["PATH"]]))
    assert found, "vLLM is not installed: make test-vllm"
    return found


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
