"""Claim: scoring costs the work of the real tokens only, and weights in CPU memory cost next to nothing.

One run, one random Qwen2-shaped reward model, the same rows of token ids: every placement of `RewardModel` beside
TRL's built-in path, one row at a time without padding, and the usual ways to keep weights in CPU memory.

Sections:
  maths        64 completions of 8 prompts: prompts of 60 to 130 tokens, log-normal completions of 550 on average and
               2048 at most. On a CPU 0.45 of that: rows of 290 on average, the longest about 770.
  long-prompt  64 completions of 200 tokens, prompts of 300: what sharing a group's prompt is worth.
  scaling      16, 64 and 256 completions of the maths kind, one and two processes, each scoring its part.

Each way lives in a process of its own. Its first pass gives scores, peak memory and the tokens that went through the
layers; the passes after it are timed, way by way in turn, so that drift hits all alike (`--order`). A ratio is the
median over the turns. Differences are from one row at a time in fp32. Weights are fp32 on a CPU, bf16 on a GPU.

Extra memory is the peak while scoring less what the process held after loading: on a CPU of resident set size, looked
at every 5 ms, on a GPU of what torch has allocated. A way that cannot run here is listed as "not run" with the reason.

Examples:
  Show that all works, in a minute or two:
    python benchmarks/reward_model_scoring.py --quick
  A CPU's figures:
    python benchmarks/reward_model_scoring.py --output results.json
  A GPU's figures; keeps the model, 15 GB:
    python benchmarks/reward_model_scoring.py --shape acemath-7b --folder /tmp/models --output results.json
  One question only:
    python benchmarks/reward_model_scoring.py --sections maths --ways resident trl one_row
"""

import argparse
import ctypes
import gc
import importlib.metadata
import importlib.util
import itertools
import json
import logging
import math
import multiprocessing
import os
import platform
import random
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import distributed, nn
from tqdm import tqdm
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)
from transformers.utils import logging as logging_of_transformers


Row = tuple[int, ...]
Result = dict[str, Any]

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.05,
    },
    "small": {  # 39M parameters, 1M of them in the embedding
        "vocab_size": 2048,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 10,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "initializer_range": 0.05,
    },
    "acemath-7b": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    },
}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
FIRST_PLAIN_ID = 300
"""Token ids below are the tokenizer's letters and control tokens: no row holds padding by accident."""
PAD_ID = FIRST_PLAIN_ID - 1

SECTIONS = ("maths", "long-prompt", "scaling")
GROUP = 8
RIVAL_TOKEN_BUDGETS = {"cpu": 2048, "cuda": 32768}
"""A CPU gains nothing from large batches; a GPU fetches all weights anew for every batch."""
MICRO_BATCH = 8
LARGE_CALL = 16384
SAMPLING_SECONDS = 0.005
PATIENCE_SECONDS = 1800
FAREWELL_SECONDS = 20
MEGABYTE = 1024**2
LIBRARIES = ("torch", "transformers", "trl", "accelerate", "deepspeed", "diffusers")


@dataclass(frozen=True)
class Setting:
    """What a way of scoring gets to know.

    Attributes:
        folder: Where the model lies.
        device: "cpu" or "cuda".
        threads: CPU threads of this process.
        token_budget: Most tokens of one forward of `RewardModel`, None for its default.
        rival_token_budget: Most tokens of one forward of a rival that cuts length buckets.
        rank: Number of this process.
        processes: How many score together.
        port: Where they meet.
    """

    folder: str
    device: str
    threads: int
    token_budget: int | None = None
    rival_token_budget: int = RIVAL_TOKEN_BUDGETS["cpu"]
    rank: int = 0
    processes: int = 1
    port: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return torch.float32 if self.device == "cpu" else torch.bfloat16


@dataclass(frozen=True)
class Plain:
    """A rival's model, the device that it computes on, and the bound on its length buckets."""

    model: Any
    device: str
    token_budget: int


def load_ours(setting: Setting, placement: Any) -> Any:
    """Load by the package. Nothing is remembered: every pass computes."""
    from trl_hybrid.reward_model import RewardModel

    options: dict[str, Any] = {"placement": placement, "dtype": setting.dtype, "cache_size": 0}
    if setting.token_budget is not None:
        options["token_budget"] = setting.token_budget
    return RewardModel(setting.folder, **options).backend


def score_ours(backend: Any, rows: Sequence[Row]) -> list[float]:
    """Score by the package."""
    return backend.score(rows)


def load_plain(setting: Setting, dtype: torch.dtype | None = None) -> Plain:
    """Load as transformers does, whole on the device."""
    return Plain(on_the_cpu(setting, dtype).to(setting.device), setting.device, setting.rival_token_budget)  # pyright: ignore[reportArgumentType]


def on_the_cpu(setting: Setting, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load as transformers does, whole in CPU memory."""
    model = AutoModelForSequenceClassification.from_pretrained(setting.folder, dtype=dtype or setting.dtype)
    return model.eval().requires_grad_(False)


def load_cpu_offload(setting: Setting) -> Plain:
    """Weights in CPU memory by accelerate's hooks, copied where and when a module computes."""
    from accelerate import cpu_offload

    return Plain(
        cpu_offload(on_the_cpu(setting), execution_device=torch.device(setting.device)),
        setting.device,
        setting.rival_token_budget,
    )


def load_group_offload(setting: Setting) -> Plain:
    """Weights in pinned memory by diffusers' hooks, layer by layer on a stream of their own."""
    model = on_the_cpu(setting)
    import_module("diffusers.hooks").apply_group_offloading(
        model.base_model,
        onload_device=torch.device(setting.device),
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=True,
    )
    model.score.to(setting.device)
    return Plain(model, setting.device, setting.rival_token_budget)


def load_fsdp2(setting: Setting) -> Plain:
    """Weights in pinned memory by FSDP2, the next layer fetched ahead."""
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    join_group(setting)
    model = on_the_cpu(setting)
    layers = [fully_shard(layer, offload_policy=CPUOffloadPolicy()) for layer in model.base_model.layers]  # pyright: ignore[reportGeneralTypeIssues]
    fully_shard(model, offload_policy=CPUOffloadPolicy())
    for layer, following in itertools.pairwise(layers):
        layer.set_modules_to_forward_prefetch([following])
    return Plain(model, setting.device, setting.rival_token_budget)


def load_zero3(setting: Setting) -> Plain:
    """Weights in CPU memory by one DeepSpeed engine, with the settings that TRL gives a reward model."""
    join_group(setting)
    deepspeed = import_module("deepspeed")
    model = on_the_cpu(setting)
    hidden = model.config.hidden_size
    on_gpu = setting.device == "cuda"
    engine, *_ = deepspeed.initialize(
        model=model,
        config={
            "train_micro_batch_size_per_gpu": MICRO_BATCH,
            "bf16": {"enabled": setting.dtype == torch.bfloat16},
            "zero_optimization": {
                "stage": 3,
                "offload_param": {"device": "cpu", "pin_memory": on_gpu},
                "reduce_bucket_size": hidden * hidden,
                "stage3_param_persistence_threshold": 10 * hidden,
                "stage3_prefetch_bucket_size": int(0.9 * hidden * hidden),
            },
        },
    )
    engine.eval()
    return Plain(engine, setting.device, setting.rival_token_budget)


def join_group(setting: Setting) -> None:
    """Say which process this is, as torchrun does, and make the process group, as a trainer's arguments do."""
    if distributed.is_initialized():
        return
    os.environ.update(
        RANK=str(setting.rank),
        LOCAL_RANK=str(setting.rank),
        WORLD_SIZE=str(setting.processes),
        LOCAL_WORLD_SIZE=str(setting.processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(setting.port),
    )
    distributed.init_process_group("gloo" if setting.device == "cpu" else "cpu:gloo,cuda:nccl")


def score_as_trl(plain: Plain, rows: Sequence[Row]) -> list[float]:
    """Score as `GRPOTrainer._calculate_rewards` does: padded to the longest, one forward, cache as configured."""
    with torch.inference_mode():
        return plain.model(**padded(rows, plain.device)).logits[:, 0].tolist()


def score_one_by_one(plain: Plain, rows: Sequence[Row]) -> list[float]:
    """Score one row a forward, without padding."""
    with torch.inference_mode():
        ids = (torch.tensor([row], device=plain.device) for row in rows)
        return [plain.model(input_ids=row, use_cache=False).logits[0, 0].item() for row in ids]


def score_in_buckets(plain: Plain, rows: Sequence[Row]) -> list[float]:
    """Score batches of rows of similar length, the longest first, under a budget of tokens with padding."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    scores: dict[int, float] = {}
    while order:
        fitting = max(1, plain.token_budget // len(rows[order[0]]))
        batch, order = order[:fitting], order[fitting:]
        scores.update(zip(batch, score_batch(plain, [rows[index] for index in batch]), strict=True))
    return [scores[index] for index in range(len(rows))]


def score_in_micro_batches(plain: Plain, rows: Sequence[Row]) -> list[float]:
    """Score so many rows a forward, in the order given."""
    batches = [rows[start : start + MICRO_BATCH] for start in range(0, len(rows), MICRO_BATCH)]
    return [score for batch in batches for score in score_batch(plain, batch)]


@torch.no_grad()  # sharded weights are no inference tensors
def score_batch(plain: Plain, rows: Sequence[Row]) -> list[float]:
    """Score one padded batch without a cache."""
    return plain.model(**padded(rows, plain.device), use_cache=False).logits[:, 0].tolist()


def padded(rows: Sequence[Row], device: str) -> dict[str, torch.Tensor]:
    """Pad rows on the right to the longest, (B, T)."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD_ID)
    mask = nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


@dataclass(frozen=True)
class Way:
    """A way of scoring.

    Attributes:
        what: What it is, in the table of `--help`.
        load: Gets the setting, returns what `score` needs.
        score: Gets that and rows, returns their scores.
        modules: Libraries that it needs.
        needs_gpu: Whether it makes no sense or does not run on a CPU.
    """

    what: str
    load: Callable[[Setting], Any]
    score: Callable[[Any, Sequence[Row]], list[float]]
    modules: tuple[str, ...] = ()
    needs_gpu: bool = False


OURS = ("resident", "streamed", "zero3", "cpu")
WAYS = {
    "resident": Way("RewardModel, weights on the device", partial(load_ours, placement="resident"), score_ours),
    "streamed": Way("RewardModel, layers copied ahead", partial(load_ours, placement="streamed"), score_ours),
    "zero3": Way("RewardModel, ZeRO-3 offload", partial(load_ours, placement="zero3"), score_ours, ("deepspeed",)),
    "cpu": Way("RewardModel, scored on the CPU", partial(load_ours, placement="cpu"), score_ours),
    "trl": Way("TRL's built-in path: padded to the longest, one forward", load_plain, score_as_trl),
    "one_row": Way("transformers, one row a forward, no padding", load_plain, score_one_by_one),
    "cpu_offload": Way(
        "accelerate's cpu_offload, length buckets", load_cpu_offload, score_in_buckets, ("accelerate",)
    ),
    "group_offload": Way(
        "diffusers' group offloading with streams, length buckets",
        load_group_offload,
        score_in_buckets,
        ("diffusers",),
        needs_gpu=True,
    ),
    "fsdp2": Way("FSDP2 with CPUOffloadPolicy, length buckets", load_fsdp2, score_in_buckets, needs_gpu=True),
    "zero3_engine": Way(
        f"DeepSpeed ZeRO-3 offload, {MICRO_BATCH} rows a forward", load_zero3, score_in_micro_batches, ("deepspeed",)
    ),
}
REFERENCE = Way("one row at a time in fp32", partial(load_plain, dtype=torch.float32), score_one_by_one)


def obstacle(way: Way, device: str, processes: int = 1) -> str | None:
    """Say why a way cannot run here, None if nothing is in its way."""
    if way.needs_gpu and device == "cpu":
        return "needs a GPU"
    if missing := [name for name in way.modules if importlib.util.find_spec(name) is None]:
        return f"{missing[0]} is not installed"
    if device == "cuda" and processes > torch.cuda.device_count():
        return f"needs {processes} GPUs"
    return None


def make_model(shape: str, folder: Path, device: str) -> None:
    """Save a random reward model with a tokenizer, unless the folder holds one already."""
    logging_of_transformers.disable_progress_bar()
    if (folder / "config.json").is_file():
        return
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_labels": 1, "max_position_embeddings": 4096, "pad_token_id": PAD_ID}
    config = Qwen2Config(**SHAPES[shape], **settings)
    with torch.device(device):
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        model = Qwen2ForSequenceClassification._from_config(config, dtype=dtype)
    # A final norm's output has entries of about 1: scores spread by about 3, as a trained model's do.
    nn.init.normal_(model.score.weight, std=3 * config.hidden_size**-0.5)
    make_tokenizer().save_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="4GB")
    del model
    release_memory()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer with a chat template: one token a byte, and the control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>", extra_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def maths_rows(completions: int, scale: float, vocab_size: int, seed: int) -> list[Row]:
    """Rows of prompts and completions as a maths policy writes them.

    Lengths are the quantiles of their distribution, shuffled: any number of rows has the same mean.

    Args:
        completions: Rows. Every `GROUP` share a prompt.
        scale: Factor on all lengths.
        vocab_size: Ids are drawn below it.
        seed: Of ids and order.

    Returns:
        Rows in the order of their prompts.
    """
    normal = statistics.NormalDist(math.log(550) - 0.5**2 / 2, 0.5)
    lengths = [min(2048.0, math.exp(normal.inv_cdf((i + 0.5) / completions))) for i in range(completions)]
    prompts = -(-completions // GROUP)
    prompt_lengths = [60 + 70 * (i + 0.5) / prompts for i in range(prompts)]
    generator = random.Random(seed)
    generator.shuffle(lengths)
    generator.shuffle(prompt_lengths)
    return rows_of([scale * x for x in prompt_lengths], [scale * x for x in lengths], vocab_size, generator)


def long_prompt_rows(completions: int, scale: float, vocab_size: int, seed: int) -> list[Row]:
    """Rows of 300 prompt tokens and 200 completion tokens."""
    prompts = -(-completions // GROUP)
    return rows_of([300 * scale] * prompts, [200 * scale] * completions, vocab_size, random.Random(seed))


def rows_of(
    prompt_lengths: Sequence[float], lengths: Sequence[float], vocab_size: int, generator: random.Random
) -> list[Row]:
    """Draw ids for every prompt, and for every completion after its group's prompt."""
    ids = range(FIRST_PLAIN_ID, vocab_size)
    prompts = [generator.choices(ids, k=max(1, round(length))) for length in prompt_lengths]
    return [
        (*prompts[index // GROUP], *generator.choices(ids, k=max(1, round(length))))
        for index, length in enumerate(lengths)
    ]


def resident_set() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def held_memory(device: str) -> int:
    """Bytes held now: resident set size on a CPU, allocated by torch on a GPU."""
    return torch.cuda.memory_allocated() if device == "cuda" else resident_set()


def release_memory() -> None:
    """Hand back what earlier passes left in allocators."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class PeakMemory:
    """Context that finds the largest `held_memory` while it is open."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.device == "cuda":
            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self._stop.set()
            self._thread.join()

    def _sample(self) -> None:
        self.bytes = resident_set()
        while not self._stop.wait(SAMPLING_SECONDS):
            self.bytes = max(self.bytes, resident_set())


@contextmanager
def counted_tokens() -> Iterator[list[int]]:
    """Collect how many tokens go through each call of an MLP of the model, whoever calls it."""
    tokens: list[int] = []

    def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if type(module).__name__.endswith("MLP") and inputs:
            tokens.append(inputs[0].numel() // inputs[0].shape[-1])

    handle = nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield tokens
    finally:
        handle.remove()


class NotRunError(Exception):
    """A way cannot score here; the message says why."""


def serve(pipe: Connection, way: Way, setting: Setting, log: str) -> None:
    """Load in this process and score what comes through the pipe, until None comes."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    torch.set_num_threads(setting.threads)
    scorer = attempt(lambda: Scorer(way, setting))
    pipe.send(scorer if isinstance(scorer, NotRunError) else None)
    while not isinstance(scorer, NotRunError) and (order := pipe.recv()) is not None:
        rows, first = order
        pipe.send(attempt(partial(scorer.observe if first else scorer.clock, rows)))


def attempt(work: Callable[[], Any]) -> Any:
    """Do the work, or return why it failed."""
    try:
        return work()
    except Exception as error:  # a rival's failure, whatever it is, is a line of the table
        logging.getLogger(__name__).exception("This way failed.")
        text = re.sub(r"(?<!\w)/[^\s'\"]+", "...", str(error).strip().partition("\n")[0])
        return NotRunError(f"{type(error).__name__}: {text[:200]}")


class Scorer:
    """A way with its model loaded, in its own process.

    Args:
        way: What to measure.
        setting: Where.
    """

    def __init__(self, way: Way, setting: Setting) -> None:
        self.way = way
        self.device = setting.device
        if self.device == "cuda":
            torch.cuda.set_device(setting.rank)
        if setting.processes > 1:
            join_group(setting)
        self.model = way.load(setting)
        # Reads every weight once, and brings in what libraries load late.
        way.score(self.model, [tuple(range(FIRST_PLAIN_ID, FIRST_PLAIN_ID + length)) for length in (8, 9)])
        release_memory()
        self.loaded = held_memory(self.device)

    def observe(self, rows: Sequence[Row]) -> Result:
        """Score once and return the scores, the tokens that went through the MLPs, and the peak of memory."""
        release_memory()
        with counted_tokens() as tokens, PeakMemory(self.device) as peak:
            scores = self.way.score(self.model, rows)
        return {"scores": scores, "mlp_tokens": sum(tokens), "loaded": self.loaded, "peak": peak.bytes}

    def clock(self, rows: Sequence[Row]) -> float:
        """Score once and return the seconds. Scores are numbers on the CPU: the device has nothing left to do."""
        release_memory()
        start = time.perf_counter()
        self.way.score(self.model, rows)
        return time.perf_counter() - start


class Crew:
    """The processes that score together in one way.

    Args:
        way: What to measure.
        setting: Where; its threads are shared out.
        processes: How many, each with its part of the rows.
        logs: Folder for what they print.
    """

    def __init__(self, way: Way, setting: Setting, processes: int, logs: str) -> None:
        self.way = way
        self.processes = processes
        threads, port = max(1, setting.threads // processes), free_port()
        self.settings = [
            replace(setting, threads=threads, rank=rank, processes=processes, port=port) for rank in range(processes)
        ]
        name = next((name for name, known in WAYS.items() if known is way), "reference")
        self.logs = [str(Path(logs) / f"{name}-{rank}-of-{processes}.log") for rank in range(processes)]
        self.workers: list[Any] = []
        self.pipes: list[Connection] = []

    def start(self) -> None:
        """Start the processes. They load side by side."""
        if reason := obstacle(self.way, self.settings[0].device, self.processes):
            raise NotRunError(reason)
        # A copy of a process that has imported the libraries starts sooner, but cannot use a GPU.
        context: Any = multiprocessing.get_context("forkserver" if self.settings[0].device == "cpu" else "spawn")
        context.set_forkserver_preload(["torch", "transformers.models.qwen2.modeling_qwen2"])
        for setting, log in zip(self.settings, self.logs, strict=True):
            ours, theirs = context.Pipe()
            worker = context.Process(target=serve, args=(theirs, self.way, setting, log), daemon=True)
            worker.start()
            theirs.close()
            self.workers.append(worker)
            self.pipes.append(ours)

    def answers(self) -> list[Any]:
        """Wait for what every process has to say, by rank; the first failure is enough."""
        answers: dict[Any, Any] = {}
        while len(answers) < len(self.pipes):
            ready = wait([pipe for pipe in self.pipes if pipe not in answers], PATIENCE_SECONDS)
            if not ready:
                raise NotRunError(f"no answer within {PATIENCE_SECONDS} s")
            answers |= {pipe: self._receive(pipe) for pipe in ready}
            for answer in answers.values():
                if isinstance(answer, NotRunError):
                    raise answer
        return [answers[pipe] for pipe in self.pipes]

    def _receive(self, pipe: Any) -> Any:
        try:
            return pipe.recv()
        except EOFError:
            worker = self.workers[self.pipes.index(pipe)]
            worker.join()
            return NotRunError(f"the process died (exit code {worker.exitcode})")

    def ask(self, rows: Sequence[Row], first: bool) -> list[Any]:
        """Let every process score its part, and return their answers by rank."""
        if not all(worker.is_alive() for worker in self.workers) or not self.workers:
            raise NotRunError("ended by an earlier failure")
        cuts = [len(rows) * rank // self.processes for rank in range(self.processes + 1)]
        for pipe, begin, end in zip(self.pipes, cuts[:-1], cuts[1:], strict=True):
            pipe.send((rows[begin:end], first))
        try:
            return self.answers()
        except NotRunError:
            if self.processes > 1:  # the others may be waiting for the one that failed
                self.stop()
            raise

    def stop(self) -> None:
        """End the processes, by force where they do not answer."""
        for pipe in self.pipes:
            with suppress(OSError):
                pipe.send(None)
        for worker in self.workers:
            worker.join(FAREWELL_SECONDS)
            worker.terminate()
            worker.join()
        self.workers, self.pipes = [], []


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def measure(
    crews: dict[str, Crew], workloads: dict[str, list[Row]], turns: int, together: bool, layers: int
) -> dict[str, dict[str, Result]]:
    """Measure every crew on every workload.

    Args:
        crews: What to measure, by label.
        workloads: Rows by name.
        turns: Timed passes, after a first one that is observed.
        together: Whether all crews stay loaded and take turns, or one follows the other.
        layers: The model's.

    Returns:
        By workload and label: the observed and `seconds`, or `not_run`.
    """
    results: dict[str, dict[str, Result]] = {name: {} for name in workloads}
    groups = [list(crews)] if together else [[label] for label in crews]
    total = len(crews) * len(workloads) * (turns + 1)
    with tqdm(total=total, unit="pass", leave=False, disable=None) as bar:
        for labels in groups:
            failed = start_all({label: crews[label] for label in labels})
            try:
                for name, rows in workloads.items():
                    results[name] |= {label: {"not_run": reason} for label, reason in failed.items()}
                    alive = {label: crews[label] for label in labels if label not in failed}
                    results[name] |= take_turns(alive, rows, turns, layers, bar)
            finally:
                for label in labels:
                    crews[label].stop()
    return results


def start_all(crews: dict[str, Crew]) -> dict[str, str]:
    """Start crews and wait until they have loaded; return why some have not."""
    failed: dict[str, str] = {}
    for step in (Crew.start, Crew.answers):
        for label, crew in crews.items():
            try:
                if label not in failed:
                    step(crew)
            except NotRunError as error:
                failed[label] = str(error)
    return failed


def take_turns(crews: dict[str, Crew], rows: Sequence[Row], turns: int, layers: int, bar: tqdm) -> dict[str, Result]:
    """Observe each crew once and time it `turns` times, each time beginning with another crew."""
    results: dict[str, Result] = {}
    for turn in range(turns + 1):
        labels = list(crews)
        start = turn % max(1, len(labels))
        for label in labels[start:] + labels[:start]:
            bar.set_description(label)
            bar.update()
            if "not_run" in results.get(label, {}):
                continue
            try:
                answers = crews[label].ask(rows, first=turn == 0)
            except NotRunError as error:
                results[label] = {"not_run": str(error)}
                continue
            if turn == 0:
                results[label] = observed(answers, layers)
            else:
                results[label]["seconds"].append(max(answers))
    return results


def observed(answers: Sequence[Result], layers: int) -> Result:
    """Sum up what the processes of a crew observed."""
    return {
        "seconds": [],
        "loaded_bytes": sum(answer["loaded"] for answer in answers),
        "extra_bytes": sum(max(0, answer["peak"] - answer["loaded"]) for answer in answers),
        "peak_bytes": sum(answer["peak"] for answer in answers),
        "computed_tokens": sum(answer["mlp_tokens"] for answer in answers) // layers,
        "scores": [score for answer in answers for score in answer["scores"]],
    }


def quotient(ways: dict[str, Result], rival: str, way: str, key: str = "seconds") -> float | None:
    """How many times the rival's figure is the way's, the median over the turns; None where one did not run."""
    figures = [ways.get(name, {}).get(key) for name in (rival, way)]
    if not all(figures):
        return None
    pairs = [figure if isinstance(figure, list) else [figure] for figure in figures]
    return statistics.median(theirs / mine for theirs, mine in zip(*pairs, strict=True))


def summarise(ways: dict[str, Result], reference: Sequence[float] | None) -> None:
    """Put the ratios and the difference of scores into the results, and take the scores out."""
    for name, result in ways.items():
        if "not_run" in result:
            continue
        scores = result.pop("scores")
        result["median_seconds"] = statistics.median(result["seconds"])
        result["times_trl"] = quotient(ways, "trl", name)
        result["times_one_row"] = quotient(ways, "one_row", name)
        differences = [] if reference is None else [abs(a - b) for a, b in zip(scores, reference, strict=True)]
        result["largest_difference"] = largest(differences)


def largest(values: Iterable[float]) -> float | None:
    """Return the largest value, NaN if there is one, None if there is nothing.

    Example:
        >>> largest([1.0, math.nan, 2.0]), largest([])
        (nan, None)
    """
    return max(values, key=lambda value: math.inf if math.isnan(value) else value, default=None)


@dataclass(frozen=True)
class Target:
    """What the package promises.

    Attributes:
        claim: In words.
        value: What was measured, None where it was not.
        bound: What it is held against.
        at_least: Whether the value must reach the bound, or stay within it.
    """

    claim: str
    value: float | None
    bound: float
    at_least: bool = True

    @property
    def outcome(self) -> str:
        """Say "met", "missed" or "not measured"."""
        if self.value is None:
            return "not measured"
        return "met" if (self.value >= self.bound if self.at_least else self.value <= self.bound) else "missed"


def cpu_targets(workloads: dict[str, dict[str, Result]]) -> list[Target]:
    """Targets for fp32 weights on a CPU."""
    maths, long_prompt = workloads.get("maths", {}), workloads.get("long-prompt", {})
    ours = [ways.get(name, {}).get("largest_difference") for ways in workloads.values() for name in OURS]
    difference = largest(value for value in ours if value is not None)
    extra = quotient(maths, "resident", "trl", "extra_bytes")
    return [
        Target("maths: resident, times TRL's speed", quotient(maths, "trl", "resident"), 4.5),
        Target("maths: resident, part of TRL's extra memory", extra, 1 / 3, at_least=False),
        Target("maths: resident, times one row's speed", quotient(maths, "one_row", "resident"), 1.1),
        Target("long prompt: resident, times one row's speed", quotient(long_prompt, "one_row", "resident"), 1.6),
        Target("largest difference of any placement from fp32", difference, 1e-4, at_least=False),
    ]


def gpu_targets(workloads: dict[str, dict[str, Result]], scaling: Sequence[Result]) -> list[Target]:
    """Targets for bf16 weights of a 7B model on a GPU. The maths rows are about 41k tokens a call."""
    maths = workloads.get("maths", {})
    peak = maths.get("streamed", {}).get("peak_bytes")
    shares = [share_of_resident(scaling, entry) for entry in scaling if entry["real_tokens"] >= LARGE_CALL]
    shares.append(quotient(maths, "resident", "streamed"))
    least = min((share for share in shares if share is not None), default=None)
    return [
        Target("maths: resident, times TRL's speed", quotient(maths, "trl", "resident"), 3),
        Target("16k tokens and more: streamed, least part of resident's speed", least, 0.9),
        Target("maths: streamed, GB on the GPU", None if peak is None else peak / 1e9, 4, at_least=False),
        Target("maths: streamed, times cpu_offload's speed", quotient(maths, "cpu_offload", "streamed"), 4),
        Target("maths: streamed, times ZeRO-3's speed", quotient(maths, "zero3_engine", "streamed"), 2),
    ]


def share_of_resident(scaling: Sequence[Result], entry: Result) -> float | None:
    """Hold a streamed entry of one process against the resident one of as many completions."""
    if entry["way"] != "streamed" or entry["processes"] != 1:
        return None
    alike = (1, entry["completions"])
    ways = {other["way"]: other for other in scaling if (other["processes"], other["completions"]) == alike}
    return quotient(ways, "resident", "streamed")


def table(lines: Sequence[Sequence[str]]) -> str:
    """Set columns: the first to the left, the others to the right. A line of two cells ends in free text."""
    columns = max(len(line) for line in lines)
    widths = [max(len(line[i]) for line in lines if len(line) == columns) for i in range(columns)]
    widths[0] = max(len(line[0]) for line in lines)
    return "\n".join(
        "  ".join(
            cell.ljust(widths[0]) if i == 0 or len(line) < columns else cell.rjust(widths[i])
            for i, cell in enumerate(line)
        )
        for line in lines
    )


def cell(value: float | None, form: str = ".2f") -> str:
    """Write a figure, a dash where there is none."""
    return "-" if value is None else format(value, form)


def ways_table(ways: dict[str, Result]) -> str:
    """One line a way."""
    lines: list[tuple[str, ...]] = [
        ("way", "seconds", "x TRL", "x one row", "extra MB", "peak MB", "tokens", "difference")
    ]
    for name, result in ways.items():
        if "not_run" in result:
            lines.append((name, f"not run: {result['not_run']}"))
            continue
        lines.append(
            (
                name,
                cell(result["median_seconds"], ".3f"),
                cell(result["times_trl"]),
                cell(result["times_one_row"]),
                cell(result["extra_bytes"] / MEGABYTE, ",.0f"),
                cell(result["peak_bytes"] / MEGABYTE, ",.0f"),
                cell(result["computed_tokens"] or None, ",d"),
                cell(result["largest_difference"], ".1e"),
            )
        )
    return table(lines)


def scaling_lines(results: dict[str, dict[str, Result]], tokens: dict[str, int]) -> list[Result]:
    """Flatten the scaling section: one entry for a way, a number of processes and a number of completions."""
    entries = []
    for completions, crews in results.items():
        for label, result in crews.items():
            way, processes = label.split(" x")
            entry: Result = {"way": way, "processes": int(processes), "completions": int(completions)}
            entry["real_tokens"] = tokens[completions]
            if "not_run" not in result:
                median = statistics.median(result["seconds"])
                alone = quotient(crews, f"{way} x1", label)
                entry |= {"median_seconds": median, "rows_per_second": int(completions) / median, "times_one": alone}
            entries.append(entry | {key: result[key] for key in ("seconds", "not_run") if key in result})
    return sorted(entries, key=lambda entry: (list(WAYS).index(entry["way"]), entry["processes"]))


def scaling_table(entries: Sequence[Result]) -> str:
    """One line a way, a number of processes and a number of completions."""
    lines: list[tuple[str, ...]] = [("way, processes", "completions", "seconds", "rows/s", "x one process")]
    for entry in entries:
        name = f"{entry['way']}, {entry['processes']}"
        if "not_run" in entry:
            line = (name, f"not run: {entry['not_run']}")
            lines += [line] if line not in lines else []
        else:
            figures = (cell(entry["median_seconds"], ".3f"), cell(entry["rows_per_second"]), cell(entry["times_one"]))
            lines.append((name, str(entry["completions"]), *figures))
    return table(lines)


def describe_machine(device: str, threads: int) -> Result:
    """Say on what was measured: no names, no paths."""
    cpu = Path("/proc/cpuinfo").read_text()
    named = re.search(r"model name\s*:\s*(.+)", cpu)
    gpu = torch.cuda.get_device_properties(0) if device == "cuda" else None
    return {
        "cpu": named[1] if named else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": gpu
        and {"name": gpu.name, "memory_gb": round(gpu.total_memory / 1e9, 1), "count": torch.cuda.device_count()},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES if importlib.util.find_spec(name)},
    }


def describe_rows(rows: Sequence[Row]) -> Result:
    """Count rows and tokens."""
    lengths = [len(row) for row in rows]
    return {
        "rows": len(rows),
        "real_tokens": sum(lengths),
        "padded_tokens": len(lengths) * max(lengths),
        "mean": sum(lengths) / len(lengths),
        "longest": max(lengths),
    }


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    ways = "\n".join(f"  {name:14} {way.what}" for name, way in WAYS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"Ways:\n{ways}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model, few short rows: shows that all works")
    parser.add_argument("--shape", choices=SHAPES, help="model; default small, tiny with --quick")
    parser.add_argument("--folder", type=Path, help="keep the random model here, and use it again; default: temporary")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, metavar="WAY", help="default: all; on a GPU all but `cpu`, which is slow"
    )
    parser.add_argument(
        "--scaling-ways", nargs="+", choices=WAYS, metavar="WAY", default=["resident", "streamed", "zero3"]
    )
    parser.add_argument("--completions", type=int, help="rows of maths and long-prompt; default 64")
    parser.add_argument("--scaling-completions", type=int, nargs="+", help="default 16 64 256")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="of the scaling section; default 1 2")
    parser.add_argument("--repeats", type=int, help="timed passes a way and workload; default 3")
    parser.add_argument("--token-budget", type=int, help="of RewardModel; default: its own")
    parser.add_argument(
        "--rival-token-budget", type=int, help="of length buckets; default 2048 on a CPU, 32768 on a GPU"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads, shared out")
    parser.add_argument(
        "--order",
        choices=("together", "apart"),
        help="together: all ways stay loaded and take turns (default on a CPU); apart: one after the other "
        "(default on a GPU, which cannot hold ten models)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the texts")
    parser.add_argument("--output", type=Path, help="write all figures to this JSON file")
    parser.add_argument("--logs", type=Path, help="keep what the processes print here: why a way was not run")
    arguments = parser.parse_args()
    small = arguments.quick
    arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments.shape = arguments.shape or ("tiny" if small else "small")
    arguments.completions = arguments.completions or (16 if small else 64)
    arguments.scaling_completions = arguments.scaling_completions or ([8, 16] if small else [16, 64, 256])
    arguments.rival_token_budget = arguments.rival_token_budget or RIVAL_TOKEN_BUDGETS[arguments.device]
    arguments.repeats = arguments.repeats or (1 if small else 3)
    arguments.ways = arguments.ways or [name for name in WAYS if arguments.device == "cpu" or name != "cpu"]
    arguments.order = arguments.order or ("together" if arguments.device == "cpu" else "apart")
    return arguments


class Bench:
    """One run of the script.

    Args:
        arguments: The command line.
        folder: Where the model lies.
        logs: Folder for what the processes print.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path, logs: str) -> None:
        self.arguments = arguments
        self.logs = logs
        self.setting = Setting(
            str(folder), arguments.device, arguments.threads, arguments.token_budget, arguments.rival_token_budget
        )
        self.layers = SHAPES[arguments.shape]["num_hidden_layers"]
        vocab_size = SHAPES[arguments.shape]["vocab_size"]
        shrink = 0.1 if arguments.quick else 1.0
        self.maths = partial(
            maths_rows,
            scale=shrink * (0.45 if arguments.device == "cpu" else 1.0),
            vocab_size=vocab_size,
            seed=arguments.seed,
        )
        self.long_prompt = partial(long_prompt_rows, scale=shrink, vocab_size=vocab_size, seed=arguments.seed)

    def crew(self, way: Way, processes: int = 1) -> Crew:
        """Make a crew for a way."""
        return Crew(way, self.setting, processes, self.logs)

    def measure(self, crews: dict[str, Crew], workloads: dict[str, list[Row]]) -> dict[str, dict[str, Result]]:
        """Measure crews on workloads as the command line says."""
        return measure(crews, workloads, self.arguments.repeats, self.arguments.order == "together", self.layers)

    def reference(self, workloads: dict[str, list[Row]]) -> dict[str, list[float]]:
        """Score one row at a time in fp32, if that fits."""
        results = measure({"reference": self.crew(REFERENCE)}, workloads, 0, True, self.layers)
        scores = {}
        for name, ways in results.items():
            if "not_run" in ways["reference"]:
                print(f"{name}: no differences, since fp32 was not run: {ways['reference']['not_run']}")
            else:
                scores[name] = ways["reference"]["scores"]
        return scores

    def side_by_side(self) -> dict[str, Result]:
        """Measure all ways on the maths and the long-prompt rows, and print the tables."""
        make = {"maths": self.maths, "long-prompt": self.long_prompt}
        workloads = {name: make[name](self.arguments.completions) for name in self.arguments.sections if name in make}
        if not workloads:
            return {}
        reference = self.reference(workloads)
        results = self.measure({name: self.crew(WAYS[name]) for name in self.arguments.ways}, workloads)
        report = {}
        for name, rows in workloads.items():
            summarise(results[name], reference.get(name))
            results[name] |= {way: {"not_run": "not asked for"} for way in WAYS if way not in results[name]}
            report[name] = describe_rows(rows) | {"ways": {way: results[name][way] for way in WAYS}}
            print(
                f"\n{name}: {report[name]['rows']} rows, {report[name]['mean']:.0f} tokens on average, "
                f"{report[name]['longest']} at most; {report[name]['real_tokens']:,} tokens, "
                f"{report[name]['padded_tokens']:,} padded to the longest"
            )
            print(ways_table(report[name]["ways"]))
        return report

    def scaling(self) -> list[Result]:
        """Measure one and two processes on ever more rows, and print the table."""
        if "scaling" not in self.arguments.sections:
            return []
        crews = {
            f"{name} x{processes}": self.crew(WAYS[name], processes)
            for name in self.arguments.scaling_ways
            for processes in self.arguments.processes
        }
        workloads = {str(count): self.maths(count) for count in self.arguments.scaling_completions}
        tokens = {name: sum(map(len, rows)) for name, rows in workloads.items()}
        entries = scaling_lines(self.measure(crews, workloads), tokens)
        print(f"\nscaling, {self.arguments.threads} threads shared out")
        print(scaling_table(entries))
        return entries


def judge(device: str, workloads: dict[str, Result], scaling: Sequence[Result]) -> list[Target]:
    """Hold the measurements against the targets, and print them."""
    ways = {name: report["ways"] for name, report in workloads.items()}
    targets = cpu_targets(ways) if device == "cpu" else gpu_targets(ways, scaling)
    lines = [("target", "measured", "bound", "outcome")]
    for target in targets:
        sign = ">=" if target.at_least else "<="
        lines.append((target.claim, cell(target.value, ".3g"), f"{sign} {target.bound:.3g}", target.outcome))
    print(f"\n{table(lines)}")
    return targets


def main() -> None:
    """Measure, print, and write the figures."""
    arguments = read_arguments()
    os.environ.setdefault("DS_ACCELERATOR", arguments.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)) / arguments.shape
        make_model(arguments.shape, folder, arguments.device)
        logs = arguments.logs or Path(temporary)
        logs.mkdir(parents=True, exist_ok=True)
        bench = Bench(arguments, folder, str(logs))
        report = {
            "machine": describe_machine(arguments.device, arguments.threads),
            "model": {"shape": arguments.shape, "dtype": str(bench.setting.dtype), **SHAPES[arguments.shape]},
            "quick": arguments.quick,
            "repeats": arguments.repeats,
            "order": arguments.order,
            "seed": arguments.seed,
            "workloads": bench.side_by_side(),
            "scaling": bench.scaling(),
        }
    targets = judge(arguments.device, report["workloads"], report["scaling"])
    report["targets"] = [asdict(target) | {"outcome": target.outcome} for target in targets]
    if arguments.quick:
        print("With --quick these say nothing: a tiny model and short rows are none of what the targets are about.")
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
