"""What scoring sets in torch while it runs, and puts back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


MOST_THREADS = 16
"""More hardly help, and in a container that may use a few of a machine's many cores they stand in each other's way."""


@contextmanager
def scoring_settings(device: torch.device) -> Iterator[None]:
    """Keep the caller's mixed precision, which is the policy's, and cuDNN's attention out of a forward.

    On Hopper and Blackwell torch prefers cuDNN's attention. It builds a plan for each new shape, 0.04 to 0.4 s each,
    and keeps them all; a batch of rows has a new shape nearly every time.
    """
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(cudnn)


@contextmanager
def own_share_of_cores() -> Iterator[None]:
    """Let torch compute on this process's share of the machine's cores.

    `accelerate launch` sets OMP_NUM_THREADS=1, and a 7B model's weights would be moved and multiplied by one core.
    """
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(before, min(cores, MOST_THREADS)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
