"""vLLM beside the other ways: a server of the same model on the same machine."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from scoring.ways import SERVER_VARIABLE, Setting


START_SECONDS = 900


@contextlib.contextmanager
def server_of(vllm: str | None, setting: Setting) -> Iterator[None]:
    """Serve the setting's model as long as the context lasts, and let the way `served` know where.

    Args:
        vllm: The command, None for no server.
        setting: The model's folder, device and threads.

    Raises:
        RuntimeError: The server does not start.
    """
    if vllm is None:
        yield
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        vllm, "serve", setting.folder, "--runner", "pooling", "--convert", "classify", "--max-model-len", "4096",
        "--dtype", str(setting.dtype).removeprefix("torch."), "--host", "127.0.0.1", "--port", str(port),
        *(["--enforce-eager"] if setting.device == "cpu" else []),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(setting.threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    with tempfile.NamedTemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            wait_for(server, f"http://127.0.0.1:{port}", Path(log.name))
            os.environ[SERVER_VARIABLE] = f"http://127.0.0.1:{port}"
            yield
        finally:
            os.environ.pop(SERVER_VARIABLE, None)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(URLError, OSError), urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(1)
    raise RuntimeError(f"vLLM did not start:\n{log.read_text()[-3000:]}")
