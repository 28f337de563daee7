"""Where a reward model's weights live, on which device its rows are computed and in which dtype."""

import logging
import os
from typing import Literal, get_args

import psutil
import torch
from accelerate import PartialState
from transformers import PreTrainedConfig

from trl_hybrid.reward_model.footprint import choose_placement, measure_footprint


logger = logging.getLogger(__name__)

Placement = Literal["auto", "resident", "streamed", "zero3", "cpu"]


def resolve_placement(
    placement: str,
    device: torch.device,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    token_budget: int | None = None,
    reserved_bytes: int = 0,
    trust_remote_code: bool = False,
) -> str:
    """Turn `auto` into the placement that fits, and say which and why.

    Args:
        placement: One of `Placement`.
        device: This process's device.
        config: The reward model's configuration.
        dtype: Type of its body's weights.
        token_budget: Most tokens of one forward, None for the default.
        reserved_bytes: Of the device's free memory, what others will still take.
        trust_remote_code: Whether the repository's own Python code may run.

    Returns:
        One of `Placement` except "auto".

    Raises:
        ValueError: An unknown placement, or `auto` where nothing fits.
    """
    if placement not in get_args(Placement):
        raise ValueError(
            f"A reward model's placement must be one of {', '.join(get_args(Placement))}, but got {placement!r}."
        )
    if placement != "auto":
        return placement
    if device.type == "cpu":
        logger.info("Reward model placement: cpu: there is no GPU")
        return "cpu"
    footprint = measure_footprint(config, dtype, trust_remote_code)
    free, _ = torch.cuda.mem_get_info(device)
    # Every process of the machine streams from a copy of its own.
    host = psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    chosen, reason = choose_placement(footprint, free, token_budget, reserved_bytes, host)
    logger.warning("Reward model placement: %s", reason)
    return chosen


def local_device() -> torch.device:
    """Return this process's accelerator, or the CPU where there is none or the launch says so.

    The launch's state is read and never made: making it early would fix the backend before the trainer's arguments do.
    """
    if PartialState._shared_state:
        return torch.device(PartialState().device or "cpu")
    wants_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1", "yes")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if wants_cpu or accelerator is None:
        return torch.device("cpu")
    return torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))


def body_dtype(
    dtype: str | torch.dtype | None, device: torch.device, checkpoint_dtype: torch.dtype | None = None
) -> torch.dtype:
    """Return the dtype of the body's weights.

    Args:
        dtype: A torch dtype or its name, "auto" for the checkpoint's, None for bf16 on an accelerator and fp32 on a
            CPU.
        device: Where rows are computed.
        checkpoint_dtype: What "auto" stands for.

    Returns:
        A floating-point dtype.

    Example:
        >>> body_dtype(None, torch.device("cpu")), body_dtype("bfloat16", torch.device("cpu"))
        (torch.float32, torch.bfloat16)
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype == "auto":
        return checkpoint_dtype or torch.float32
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ValueError(f"`dtype` must be a floating-point dtype such as 'bfloat16', or 'auto', but got {dtype!r}.")
    return named
