"""Programs that start a real vLLM on the CPU, for the tests marked `vllm`; `make test-vllm` runs them."""

import os
import subprocess
import sys


ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_COMPILE_DISABLE": "1",  # compiling takes longer than a test
}


def run(*arguments):
    """Run Python with the arguments; return what it left, with all it printed as `stdout`."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
