"""Where a reward model's weights live, on which device its rows are computed and in which dtype."""

import logging
import os
from typing import Any, Literal, get_args

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from transformers import PreTrainedConfig

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.footprint import Footprint, Need, Placement, gigabytes, measure_footprint
from trl_hybrid.reward_model.host_memory import free_host_bytes


logger = logging.getLogger(__name__)

PlacementSetting = Literal["auto", "resident", "streamed", "zero3", "cpu", "server"]


FASTEST_FIRST: tuple[Placement, ...] = ("resident", "streamed", "cpu")
"""What `auto` tries."""


def resolve_placement(
    placement: str,
    device: torch.device,
    config: PreTrainedConfig,
    dtype: torch.dtype | None,
    token_budget: int | None = None,
    reserved: Need | int = 0,
    trust_remote_code: bool = False,
    deepspeed_config: Any = None,
) -> str:
    """Turn `auto` into the placement that fits, say which and why; and look whether a chosen one fits host memory.

    The arguments are those of [`RewardModel`]; a plain number of `reserved` bytes lasts.

    Raises:
        InputError: An unknown placement, weights that do not fit into host memory, or `auto` where nothing fits.
    """
    known = get_args(PlacementSetting)
    if placement not in known:
        raise InputError(f"A reward model's placement must be one of {', '.join(known)}, but got {placement!r}.")
    # A device that is full says so by itself.
    if placement == "resident" or (placement == "zero3" and deepspeed_config is not None):
        return placement
    footprint = measure_footprint(config, dtype, trust_remote_code)
    # Every process of the machine holds weights of its own, or its own share of them.
    host = free_host_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if placement != "auto":
        check_host_memory(footprint, placement, host, int(os.environ.get("WORLD_SIZE", "1")))
        return placement
    free = None if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    needed = reserved if isinstance(reserved, Need) else Need(reserved)
    chosen, reason = choose_placement(footprint, free, token_budget, needed, host)
    logger.log(logging.INFO if free is None else logging.WARNING, "Reward model placement: %s", reason)
    return chosen


def choose_placement(
    footprint: Footprint,
    free_bytes: int | None,
    tokens: int | None = None,
    reserved: Need = Need(0),  # noqa: B008 - frozen
    host_bytes: int | None = None,
) -> tuple[Placement, str]:
    """Choose the fastest placement that fits: resident, otherwise streamed, otherwise the CPU.

    Args:
        footprint: The reward model's.
        free_bytes: Free on the GPU, None where there is no GPU.
        tokens: Tokens of one forward, None for each placement's default.
        reserved: Of the free ones, what training will still take. What passes of it is there for scoring in turn.
        host_bytes: Free in the machine's memory for this process, None for enough.

    Returns:
        The placement, and one line with the reason.

    Raises:
        InputError: None fits. The message says what each needs, what there is, and what to do.

    Example:
        >>> small = Footprint(2, 4, 10, 10**9, 10**9, 0, (), 0, 0)
        >>> choose_placement(small, 5 * 10**9)[1]
        'streamed: needs 3.0 GB on the GPU, resident would need 11.0 GB on the GPU, 5.0 GB are free'
    """
    free, left = _free_beside_training(free_bytes, reserved)
    passed_over: list[str] = []
    for placement in FASTEST_FIRST:
        gpu = reserved.beside(footprint.on_gpu(placement, tokens)).total - reserved.total
        host = footprint.host_bytes(placement)
        if free_bytes is None and placement != "cpu":
            continue
        if placement == "streamed" and not footprint.streamable:
            shared = footprint.on_gpu("zero3", tokens).total
            advice = ": choose that" if shared <= left else ""
            passed_over.append(
                f"this architecture cannot be streamed (zero3 would need {gigabytes(shared)} on the GPU{advice})"
            )
        elif gpu > left:
            passed_over.append(f"{placement} would need {gigabytes(gpu)} on the GPU")
        elif host_bytes is not None and host > host_bytes:
            passed_over.append(f"{placement} would need {gigabytes(host)} of {_host_memory(placement)}")
        else:
            needs = [] if placement == "cpu" else [f"needs {gigabytes(gpu)} on the GPU"]
            return placement, f"{placement}: {', '.join([*needs, *passed_over, free])}"
    raise InputError(
        f"No placement of the reward model fits: {', '.join(passed_over)}; {free}, and {gigabytes(host_bytes or 0)} "
        f"of the machine's or container's memory for each of its processes. {_more_room(footprint)}"
    )


def check_host_memory(footprint: Footprint, placement: Any, host_bytes: int, processes: int = 1) -> None:
    """Refuse weights that do not fit into host memory: the system would end the process without a word.

    Raises:
        InputError: They do not fit.
    """
    needed = footprint.host_bytes(placement, processes)
    if needed > host_bytes:
        raise InputError(
            f"The reward model's placement {placement!r} needs {gigabytes(needed)} of {_host_memory(placement)} in "
            f"each process, {gigabytes(host_bytes)} of the machine's or container's are free for each. "
            f"{_more_room(footprint)}"
        )


def _free_beside_training(free_bytes: int | None, reserved: Need) -> tuple[str, int]:
    """Say and return what is free on the GPU beside training."""
    if free_bytes is None:
        return "there is no GPU", 0
    left = max(0, free_bytes - reserved.total)
    less = f" ({gigabytes(free_bytes)} less {gigabytes(reserved.total)} for training)" if reserved.total else ""
    return f"{gigabytes(left)} are free{less}", left


def _host_memory(placement: str) -> str:
    return "host memory" if placement == "cpu" else "pinned host memory"


def _more_room(footprint: Footprint) -> str:
    """Say what to do where host memory is short."""
    whole, half = footprint.host_bytes("cpu"), footprint.weight_bytes
    typed = f" (`reward_model_dtype: bfloat16` takes {gigabytes(half)} on the CPU)" if half < whole else ""
    return (
        "Raise the container's limit, take a smaller reward model or number type"
        f"{typed}, or, with several processes, `zero3`, which shares one copy between them."
    )


def local_device() -> torch.device:
    """Return this process's accelerator, or the CPU where there is none or the launch says so.

    The launch's state is read and never made: making it early would fix the backend before the trainer's arguments do.
    """
    if PartialState._shared_state:
        return torch.device(PartialState().device or "cpu")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if parse_flag_from_env("ACCELERATE_USE_CPU") or accelerator is None:
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
        raise InputError(f"`dtype` must be a floating-point dtype such as 'bfloat16', or 'auto', but got {dtype!r}.")
    return named
