"""Accelerators, memory, and whether the Hub answers."""

import os
from collections.abc import Iterator
from pathlib import Path

from trl_hybrid.checks.finding import Finding
from trl_hybrid.memory.size import size


HUB_SECONDS = 5

COMMON_HEAD_SIZE = 128
"""Of 7B reward models, and of many others."""


def check_machine() -> Iterator[Finding]:
    """Look for accelerators, memory and cores."""
    import psutil
    import torch

    from trl_hybrid.reward_model.host_memory import free_host_bytes

    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding("ok", f"GPU {index}: {name}, {size(free)} free of {size(total)}")
        yield from check_attention(index)
    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists():
            yield Finding(
                "problem",
                f"There is an NVIDIA GPU, but torch {torch.__version__} cannot use it",
                "Install torch for the driver's CUDA version: https://pytorch.org/get-started/locally",
            )
        yield Finding("note", "No GPU: everything runs on the CPU, which is enough for the embedded models")
    cores = len(os.sched_getaffinity(0))
    total = psutil.virtual_memory().total
    yield Finding("ok", f"{size(free_host_bytes())} of memory free of {size(total)}, {cores} cores")


def check_attention(index: int) -> Iterator[Finding]:
    """Say which attention training and the reward model use on a GPU."""
    import torch

    from trl_hybrid.packing.attention import kernel_options
    from trl_hybrid.training.attention import prefers_cudnn_attention

    if prefers_cudnn_attention(index):
        yield Finding(
            "note",
            f"GPU {index}: torch prefers cuDNN's attention, whose gradients can be NaN. The recipes turn it off; in a "
            "program of your own, call trl_hybrid.training.attention.turn_off_cudnn_attention() before training",
        )
    if kernel_options(torch.device("cuda", index), torch.bfloat16, COMMON_HEAD_SIZE) is not None:
        yield Finding("ok", f"GPU {index}: packed rows are scored with torch's varlen attention, all in one call")
    else:
        yield Finding(
            "note",
            f"GPU {index}: packed rows are scored with one attention call each, which is slower; torch 2.10 or newer "
            "has one call for all on GPUs of compute capability 8.0 or higher",
        )


def check_hub() -> Iterator[Finding]:
    """Say whether the Hub answers, and who is logged in; neither is a problem where everything lies in folders.

    A token that the Hub refuses is one: with it even public models cannot be had.
    """
    from huggingface_hub import HfApi, constants, get_session, get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
        user = HfApi().whoami()["name"] if get_token() else None
    except (OSError, HTTPError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, HfHubHTTPError) and error.response.status_code == 401:
            fix = "Log in again by `hf auth login`, or out by `hf auth logout`; HF_TOKEN goes before both."
            yield Finding("problem", f"The Hub refuses the token that is set here ({reason})", fix)
            return
        yield Finding("note", f"The Hub does not answer ({reason}); models and data in folders work all the same")
        return
    yield Finding("ok", f"{constants.ENDPOINT} answers")
    if user:
        yield Finding("ok", f"Logged in as {user}")
    else:
        yield Finding("note", "Nobody is logged in; gated models and push_to_hub need `hf auth login`")
