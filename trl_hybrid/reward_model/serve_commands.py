"""The commands that put a reward model behind vLLM or SGLang."""

import shlex
from dataclasses import dataclass


DEFAULT_PORT = 8001
"""vLLM's own 8000 is where a policy's server is."""


@dataclass(frozen=True)
class Served:
    """A reward model as it is to be served.

    Attributes:
        name: Hub id or folder. A server must know the model by this very name.
        max_length: Most tokens of a row, None for what the model allows.
        dtype: Number type; the servers' own choice for weights in float32 would be float16.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether the repository's own Python code may run.
        gpus: GPUs that hold one copy, 0 for a CPU.
        port: Where it listens.
        batch_invariant: Whether vLLM is to give the same number whatever else is in the batch.
    """

    name: str
    max_length: int | None = None
    dtype: str = "bfloat16"
    revision: str | None = None
    trust_remote_code: bool = False
    gpus: int = 1
    port: int = DEFAULT_PORT
    batch_invariant: bool = False


def vllm_command(served: Served) -> str:
    """Return the command for vLLM.

    Example:
        >>> print(vllm_command(Served("my/rm", max_length=4096)))
        vllm serve my/rm --runner pooling --convert classify --dtype bfloat16 --max-model-len 4096 --port 8001
    """
    cpu = {"VLLM_CPU_KVCACHE_SPACE": "4"} if served.gpus == 0 else {}
    environment = {**cpu, **({"VLLM_BATCH_INVARIANT": "1"} if served.batch_invariant else {})}
    words = ["vllm", "serve", served.name, "--runner", "pooling", "--convert", "classify", "--dtype", served.dtype]
    words += ["--max-model-len", str(served.max_length)] if served.max_length else []
    words += ["--tensor-parallel-size", str(served.gpus)] if served.gpus > 1 else []
    words += ["--enforce-eager"] if served.gpus == 0 else []
    return shlex.join([f"{name}={value}" for name, value in environment.items()] + words + _common(served))


def sglang_command(served: Served) -> str:
    """Return the command for SGLang.

    Example:
        >>> print(sglang_command(Served("my/rm", max_length=4096, gpus=2)))
        python -m sglang.launch_server --model-path my/rm --is-embedding --dtype bfloat16 --context-length 4096 \
--tp-size 2 --port 8001
    """
    words = ["python", "-m", "sglang.launch_server", "--model-path", served.name, "--is-embedding"]
    words += ["--dtype", served.dtype]
    words += ["--context-length", str(served.max_length)] if served.max_length else []
    words += ["--tp-size", str(served.gpus)] if served.gpus > 1 else []
    words += ["--device", "cpu"] if served.gpus == 0 else []
    return shlex.join(words + _common(served))


def _common(served: Served) -> list[str]:
    words = ["--revision", served.revision] if served.revision else []
    words += ["--trust-remote-code"] if served.trust_remote_code else []
    return [*words, "--port", str(served.port)]
