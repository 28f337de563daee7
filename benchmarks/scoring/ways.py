"""The ways of scoring that are compared. A way loads the model and returns the function that scores rows with it."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from scoring.workload import PAD_ID, Row
from torch import distributed, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.footprint import PLACEMENTS, Placement


Score = Callable[[Sequence[Row]], list[float]]

MICRO_BATCH = 8
SERVER_VARIABLE = "TRL_HYBRID_BENCHMARK_SERVER"
"""Environment variable of the address at which the model is served, for the way `served`."""
BUCKET_TOKENS = {"cpu": 2048, "cuda": 32768}
"""A CPU gains nothing from large batches; a GPU fetches all weights anew for every batch."""


@dataclass(frozen=True)
class Setting:
    """What a way gets to know.

    Attributes:
        folder: Where the model lies.
        device: "cpu" or "cuda".
        threads: CPU threads of this process.
        rank: Number of this process.
        processes: How many score together.
        meeting: URL at which they meet.
    """

    folder: str
    device: str
    threads: int
    rank: int = 0
    processes: int = 1
    meeting: str = ""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return torch.float32 if self.device == "cpu" else torch.bfloat16


def join_group(setting: Setting) -> None:
    """Make the process group, and say which process this is as torchrun does."""
    if distributed.is_initialized():
        return
    rank, processes = str(setting.rank), str(setting.processes)
    os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes, LOCAL_WORLD_SIZE=processes)
    backend = "gloo" if setting.device == "cpu" else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(
        backend, init_method=setting.meeting, rank=setting.rank, world_size=setting.processes
    )


def ours(setting: Setting, placement: Any) -> Score:
    """The package. It remembers nothing: every pass computes."""
    return RewardModel(setting.folder, placement=placement, dtype=setting.dtype, cache_size=0).backend.score


def served(setting: Setting) -> Score:
    """The package, with the model behind vLLM; the memory that is measured is without the server's."""
    urls = os.environ[SERVER_VARIABLE]
    return RewardModel(setting.folder, server_urls=urls, dtype=setting.dtype, cache_size=0).backend.score


def trl(setting: Setting) -> Score:
    """TRL's `_calculate_rewards`: padded to the longest, one forward, cache as configured."""
    return partial(forward, load(setting).to(setting.device), setting.device)  # pyright: ignore[reportArgumentType]


def one_row(setting: Setting, dtype: torch.dtype | None = None) -> Score:
    """One row a forward, without padding."""
    model = load(setting, dtype).to(setting.device)  # pyright: ignore[reportArgumentType]
    return partial(in_micro_batches, model, setting.device, size=1)


def cpu_offload(setting: Setting) -> Score:
    """Weights in CPU memory by accelerate's hooks, copied when a module computes; length buckets."""
    model = import_module("accelerate").cpu_offload(load(setting), execution_device=torch.device(setting.device))
    return partial(in_buckets, model, setting.device)


def group_offload(setting: Setting) -> Score:
    """Weights in pinned memory by diffusers' hooks, layer by layer on a stream of their own; length buckets."""
    model = load(setting)
    import_module("diffusers.hooks").apply_group_offloading(
        model.base_model,
        onload_device=torch.device(setting.device),
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=True,
    )
    model.score.to(setting.device)
    return partial(in_buckets, model, setting.device)


def fsdp2(setting: Setting) -> Score:
    """Weights in pinned memory by FSDP2, the next layer fetched ahead; length buckets."""
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    join_group(setting)
    model = load(setting)
    layers = [fully_shard(layer, offload_policy=CPUOffloadPolicy()) for layer in model.base_model.layers]  # pyright: ignore[reportGeneralTypeIssues]
    fully_shard(model, offload_policy=CPUOffloadPolicy())
    for layer, following in pairwise(layers):
        layer.set_modules_to_forward_prefetch([following])
    return partial(in_buckets, model, setting.device)


def zero3_engine(setting: Setting) -> Score:
    """Weights in CPU memory by one DeepSpeed engine, with TRL's settings for a reward model; rows 8 by 8."""
    join_group(setting)
    model = load(setting)
    hidden = model.config.hidden_size
    stage3 = {
        "stage": 3,
        "offload_param": {"device": "cpu", "pin_memory": setting.device == "cuda"},
        "reduce_bucket_size": hidden * hidden,
        "stage3_param_persistence_threshold": 10 * hidden,
        "stage3_prefetch_bucket_size": int(0.9 * hidden * hidden),
    }
    config = {
        "train_micro_batch_size_per_gpu": MICRO_BATCH,
        "bf16": {"enabled": setting.dtype == torch.bfloat16},
        "zero_optimization": stage3,
    }
    engine, *_ = import_module("deepspeed").initialize(model=model, config=config)
    engine.eval()
    return partial(in_micro_batches, engine, setting.device, size=MICRO_BATCH)


def load(setting: Setting, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load as transformers does, whole in CPU memory."""
    model = AutoModelForSequenceClassification.from_pretrained(setting.folder, dtype=dtype or setting.dtype)
    return model.eval().requires_grad_(False)


@torch.no_grad()  # sharded weights are no inference tensors
def forward(model: Any, device: str, rows: Sequence[Row], **options: Any) -> list[float]:
    """Score rows in one forward, padded on the right to the longest; a lone row needs no mask."""
    tensors = [torch.tensor(row) for row in rows]
    ids = nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=PAD_ID).to(device)  # (B, T)
    mask = None if len(rows) == 1 else (ids != PAD_ID).long()
    return model(input_ids=ids, attention_mask=mask, **options).logits[:, 0].tolist()


def in_micro_batches(model: Any, device: str, rows: Sequence[Row], size: int) -> list[float]:
    """Score so many rows a forward, in the order given."""
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [score for batch in batches for score in forward(model, device, batch, use_cache=False)]


def in_buckets(model: Any, device: str, rows: Sequence[Row]) -> list[float]:
    """Score batches of rows of similar length, the longest first, as many as fit into the tokens with padding."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    scores: dict[int, float] = {}
    while order:
        fitting = max(1, BUCKET_TOKENS[device] // len(rows[order[0]]))
        batch, order = order[:fitting], order[fitting:]
        values = forward(model, device, [rows[index] for index in batch], use_cache=False)
        scores.update(zip(batch, values, strict=True))
    return [scores[index] for index in range(len(rows))]


@dataclass(frozen=True)
class Way:
    """A way of scoring.

    Attributes:
        start: Gets the setting, returns what scores.
        module: Library that it needs.
        needs_gpu: Whether it makes no sense, or does not run, on a CPU.
        needs_server: Whether the model must be served beside.
    """

    start: Callable[[Setting], Score]
    module: str = "torch"
    needs_gpu: bool = False
    needs_server: bool = False


OURS: dict[str, Placement] = {name: name for name in PLACEMENTS}
WAYS = {
    "resident": Way(partial(ours, placement="resident")),
    "streamed": Way(partial(ours, placement="streamed")),
    "zero3": Way(partial(ours, placement="zero3"), "deepspeed"),
    "cpu": Way(partial(ours, placement="cpu")),
    "served": Way(served, needs_server=True),
    "trl": Way(trl),
    "one_row": Way(one_row),
    "fp32": Way(partial(one_row, dtype=torch.float32)),  # what differences are from, where weights are bf16
    "cpu_offload": Way(cpu_offload, "accelerate"),
    "group_offload": Way(group_offload, "diffusers", needs_gpu=True),
    "fsdp2": Way(fsdp2, needs_gpu=True),
    "zero3_engine": Way(zero3_engine, "deepspeed"),
}


def obstacle(way: Way, device: str, processes: int) -> str | None:
    """Say why a way cannot run here, None if nothing is in its way."""
    if way.needs_server and SERVER_VARIABLE not in os.environ:
        return "there is no server (--vllm)"
    if way.needs_gpu and device == "cpu":
        return "needs a GPU"
    if importlib.util.find_spec(way.module) is None:
        return f"{way.module} is not installed"
    if device == "cuda" and processes > torch.cuda.device_count():
        return f"needs {processes} GPUs"
    return None
