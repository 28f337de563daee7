"""The reward model under DeepSpeed ZeRO-3 of its own, its weights on the CPU, whatever holds the policy.

Each process keeps its share of the weights in host memory and gathers a layer on its device when the forward gets
there. Gathering is collective, so every process runs the same number of forwards in every call.
"""

import json
import os
from collections.abc import Sequence
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from torch import distributed, nn

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.forwards import Forward, choose_forward
from trl_hybrid.reward_model.loading import Source, load_model, sharded_weights, split_model
from trl_hybrid.reward_model.out_of_memory import DoesNotFitError
from trl_hybrid.reward_model.plan import Batch, Family, Row, rows_of
from trl_hybrid.shipped import shipped_folder


CONFIG = "deepspeed/rm_zero3_offload.json"

OLDEST_DEEPSPEED = "0.19.8"
"""Older ones cast the rotary frequencies to bf16 (DeepSpeed#8066), which moves the score of a long row by a tenth."""


class Zero3Model:
    """Scores rows of token ids with weights that every process holds a share of, in host memory.

    All processes call `score` together, each with its own rows, be they none.

    Args:
        forward: How a batch goes through the sharded model.
        device: Where rows are computed.
        token_budget: Bound on a forward's computed tokens.
        engine: What shards the model. Let go, it would take the hooks that gather the weights with it.
    """

    def __init__(self, forward: Forward, device: torch.device, token_budget: int, engine: Any) -> None:
        self.forward = forward
        self.engine = engine
        self.device = device
        self.token_budget = token_budget
        self.forwards = 0

    def score(self, rows: Sequence[Row]) -> list[float]:
        """Score this process's rows of token ids; see [`ScoringBackend`].

        Raises:
            DoesNotFitError: A forward did not fit. The other processes wait in it, so that it cannot be
                repeated with fewer tokens.
        """
        scores = [float("nan")] * len(rows)
        batches = self.forward.plan(rows, self.token_budget)
        # A forward gathers each layer's weights from all processes: who stops early leaves the others waiting.
        count = torch.tensor(len(batches), device=self.device)
        distributed.all_reduce(count, op=distributed.ReduceOp.MAX)
        for batch in batches:
            for row, value in zip(rows_of(batch), self._run(rows, batch), strict=True):
                scores[row] = value
        for _ in range(int(count) - len(batches)):  # a row of one token, whose score nobody reads
            self._run([(0,)], [Family(0, (0,))])
        return scores

    def _run(self, rows: Sequence[Row], batch: Batch) -> list[float]:
        self.forwards += 1
        try:
            return self.forward.run(rows, batch)
        except torch.OutOfMemoryError as error:
            raise DoesNotFitError(
                f"The reward model under ZeRO-3 ran out of memory on {self.device} with "
                f"{self.forward.tokens(rows, batch)} tokens in one forward. Lower its token budget "
                "(`reward_model_token_budget`)."
            ) from error


def load_zero3(
    source: Source,
    dtype: torch.dtype,
    device: torch.device,
    token_budget: int,
    samples: Sequence[Row],
    config: str | Path | dict[str, Any] | None = None,
) -> Zero3Model:
    """Load a reward model sharded over all processes, in host memory.

    Raises:
        ImportError: DeepSpeed is not installed, or too old.
        InputError: A configuration of another stage than 3, or no process group where there are several processes.
    """
    check_deepspeed()
    import deepspeed  # where it is needed: it is an extra, and its import sets up compilers

    settings = read_config(shipped_folder("accelerate_configs") / CONFIG if config is None else config, dtype)
    ensure_process_group(device)
    with sharded_weights(settings):
        model = load_model(source, dtype, torch.device("cpu"))
    body, sharded_head = split_model(model)
    # The engine is the body's: nothing would gather a sharded head.
    head = whole_head(sharded_head, device)
    engine, *_ = deepspeed.initialize(model=body, config=settings)
    engine.eval()
    return Zero3Model(choose_forward(body, head, samples), device, token_budget, engine)


def check_deepspeed() -> None:
    """Refuse a DeepSpeed that would give other scores.

    Raises:
        ImportError: It is not installed, or older than `OLDEST_DEEPSPEED`.
    """
    try:
        found = version("deepspeed")
    except PackageNotFoundError:
        found = None
    if found is None or Version(found) < Version(OLDEST_DEEPSPEED):
        state = "is not installed" if found is None else f"{found} is installed: it scores with bf16 frequencies"
        raise ImportError(
            f"A reward model under ZeRO-3 needs deepspeed {OLDEST_DEEPSPEED} or newer, but deepspeed {state}. "
            f"pip install 'deepspeed>={OLDEST_DEEPSPEED}', or place the reward model `resident` or `streamed`."
        )


def read_config(config: str | Path | dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Read a DeepSpeed configuration, check that it is one for ZeRO-3 and set its number type to the model's.

    DeepSpeed would convert a model of another type, to fp32 where the configuration names none.
    """
    if isinstance(config, dict):
        settings, name = deepcopy(config), "the reward model's DeepSpeed configuration"
    else:
        path = Path(config)
        if not path.is_file():
            raise InputError(f"The reward model's DeepSpeed configuration {str(path)!r} does not exist.")
        settings, name = json.loads(path.read_text()), str(path)
    stage = settings.get("zero_optimization", {}).get("stage")
    if stage != 3:
        raise InputError(
            f"The reward model's own DeepSpeed configuration must have zero_optimization.stage 3, got {stage} in "
            f"{name}. The policy's goes into accelerate's configuration."
        )
    # A training configuration may be given too, and nothing is trained here.
    for training_only in ("optimizer", "scheduler"):
        settings.pop(training_only, None)
    settings["zero_optimization"].pop("offload_optimizer", None)
    for name, kind in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        if name in settings or dtype == kind:
            settings[name] = {**settings.get(name, {}), "enabled": dtype == kind}
    settings.setdefault("train_micro_batch_size_per_gpu", 1)
    return settings


def whole_head(sharded: nn.Linear, device: torch.device) -> nn.Linear:
    """Gather a sharded score head into one of each process's own, in fp32."""
    import deepspeed

    head = nn.Linear(sharded.in_features, 1, bias=sharded.bias is not None, device=device, dtype=torch.float32)
    head.requires_grad_(False)
    with deepspeed.zero.GatheredParameters(list(sharded.parameters())):
        for own, shared in zip(head.parameters(), sharded.parameters(), strict=True):
            own.copy_(shared)
    return head


def ensure_process_group(device: torch.device) -> None:
    """Make a process group of one where there is none, as under a plain launch.

    Raises:
        InputError: There are several processes and they have not found each other yet.
    """
    import deepspeed

    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(
                "The reward model under ZeRO-3 is shared by all processes, but their process group is not there yet. "
                "Make the training arguments (HybridGRPOConfig) before the RewardModel."
            )
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed reads it; only launchers set it
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
