"""On which device and in which dtype a reward model's weights live."""

import os

import torch
from accelerate import PartialState


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


def body_dtype(dtype: str | torch.dtype | None, device: torch.device) -> str | torch.dtype:
    """Return the dtype of the body's weights.

    Args:
        dtype: A torch dtype or its name, "auto" for the checkpoint's, None for bf16 on an accelerator and fp32 on a
            CPU.
        device: Where the weights will live.

    Returns:
        A floating-point dtype, or "auto".

    Example:
        >>> body_dtype(None, torch.device("cpu")), body_dtype("bfloat16", torch.device("cpu"))
        (torch.float32, torch.bfloat16)
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype == "auto":
        return dtype
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ValueError(f"`dtype` must be a floating-point dtype such as 'bfloat16', or 'auto', but got {dtype!r}.")
    return named
