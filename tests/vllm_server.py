"""A real vLLM that serves a small reward model on the CPU, for the tests marked `vllm`."""

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


PATIENCE_SECONDS = 900
"""A start takes 45 s on two free cores."""


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
