"""What a device really ran: the kernels that took the time, and by which path attention went."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.profiler import ProfilerActivity, profile


MOST = 8
PATHS = {"cudnn": "cudnn", "flash": "flash", "fmha": "efficient", "efficient_attention": "efficient"}
"""What the names of attention kernels contain, and the path that they stand for; the first that fits counts."""


def profiled(score: Callable[[], Any], device: str) -> dict[str, Any]:
    """Run once under torch's profiler.

    Args:
        score: What is run.
        device: "cpu" or "cuda": whose time is counted.

    Returns:
        `kernels`: the names of the `MOST` that took most time, with their share of it. `attention`: the paths seen.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        score()
    key = f"self_{device.replace('cuda', 'device')}_time_total"
    seconds = {event.key: float(getattr(event, key)) for event in profiler.key_averages()}
    whole = sum(seconds.values())
    longest = sorted((name for name in seconds if seconds[name] > 0), key=lambda name: -seconds[name])
    return {
        "kernels": {name[:120]: round(seconds[name] / whole, 4) for name in longest[:MOST]},
        "attention": attention_paths(longest),
    }


def attention_paths(kernels: Sequence[str]) -> list[str]:
    """Say by which paths attention went; "math" where none of the fused kernels is there.

    Example:
        >>> attention_paths(["aten::mm", "flash::flash_fwd_kernel<...>"]), attention_paths(["aten::mm"])
        (['flash'], ['math'])
    """
    matches = [[path for mark, path in PATHS.items() if mark in name.lower()] for name in kernels]
    return sorted({paths[0] for paths in matches if paths}) or ["math"]
