"""A warm-up before the first step: the policy answers a few prompts, to see in which range the scores lie."""

import asyncio
import copy
import inspect
import itertools
import math
import random
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback

from trl_hybrid.errors import InputError


class Calibrate(TrainerCallback):
    """Find the calibrated bounds before the first step, where they are asked for and not known yet.

    Args:
        trainer: A `HybridGRPOTrainer` with judges.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the trainer calibrate."""
        self.trainer.calibrate()


def calibration_scores(trainer: Any, count: int) -> torch.Tensor:
    """Answer the first prompts of the training set as in training, and score the answers.

    All processes take part and make the same number of calls. Afterwards the random states, the logs and the counters
    are what they were; the sampler of a vLLM engine has its own random state and goes on.

    Args:
        trainer: A `HybridGRPOTrainer`.
        count: Prompts to answer; all of the training set where it has fewer.

    Returns:
        Shape (prompts * num_generations,), the same on every process; NaN where the reward model gave `None`.

    Raises:
        InputError: The training set has no prompt, or the policy has tools or an environment.
    """
    if trainer.tools or getattr(trainer, "environment_factories", None) is not None:
        raise InputError(
            "hybrid_bounds 'calibrated' answers prompts before training, without tools and outside of any "
            "environment. With these, set hybrid_bounds to stratum or group."
        )
    rows = list(itertools.islice(iter(trainer.train_dataset), count))
    if not rows:
        raise InputError(
            f"hybrid_bounds 'calibrated' answers the first hybrid_calibration_prompts = {count} prompts of the "
            "training set, and it has none. Give it rows, or set hybrid_bounds to stratum or group."
        )
    accelerator, group = trainer.accelerator, trainer.num_generations
    total = len(rows) * group
    size = call_size(total, group, accelerator.num_processes, trainer.args.generation_batch_size)
    share = size // accelerator.num_processes
    scores: list[torch.Tensor] = []
    hidden = trainer.args.disable_tqdm or not accelerator.is_main_process
    with _undisturbed(trainer), tqdm(total=total, desc="Calibrating the scores' bounds", disable=hidden) as bar:
        for start in range(accelerator.process_index * share, total + accelerator.process_index * share, size):
            # The last call starts again with the first prompts where it has room.
            own = [rows[row % total // group] for row in range(start, start + share)]
            scores.append(accelerator.gather(_answer_and_score(trainer, own)))
            bar.update(min(size, total - bar.n))
    return torch.cat(scores)[:total].cpu()


def call_size(total: int, group: int, processes: int, largest: int) -> int:
    """Split completions into as few and as equal calls as a batch of training allows.

    Args:
        total: Completions in all.
        group: Completions per prompt.
        processes: They share each call equally.
        largest: Completions of a training batch over all processes; a multiple of `group` and of `processes`.

    Returns:
        Completions a call, a multiple of `group` and of `processes`, at most `largest`.

    >>> call_size(total=80, group=8, processes=1, largest=64)
    40
    >>> call_size(total=80, group=8, processes=3, largest=48)
    48
    """
    unit = math.lcm(group, processes)
    calls = math.ceil(total / largest)
    return unit * math.ceil(total / (calls * unit))


def _answer_and_score(trainer: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    prompts = [row["prompt"] for row in rows]
    _, completion_ids, _, completions, *_ = trainer._generate(prompts)
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    scores = trainer.reward_model(
        prompts=prompts,
        completions=completions,
        completion_ids=completion_ids,
        completion_truncated=trainer.cut_off(completion_ids),
        trainer_state=trainer.state,
        log_extra=_ignore,
        log_metric=_ignore,
        **columns,
    )
    if inspect.isawaitable(scores):  # TRL runs such functions in a loop of its own
        scores = asyncio.run_coroutine_threadsafe(_awaited(scores), trainer.async_loop).result()
    numbers = [torch.nan if score is None else score for score in scores]
    return torch.tensor(numbers, dtype=torch.float32, device=trainer.accelerator.device)


async def _awaited(scores: Awaitable[Sequence[float | None]]) -> Sequence[float | None]:
    return await scores


def _ignore(name: str, value: Any) -> None:
    """Take the place of TRL's loggers."""


@contextmanager
def _undisturbed(trainer: Any) -> Iterator[None]:
    """Generate as in training, and leave no trace of it."""
    device = trainer.accelerator.device
    metrics, tokens = copy.deepcopy(trainer._metrics), trainer.state.num_input_tokens_seen
    was_training, states = trainer.model.training, (random.getstate(), np.random.get_state())
    trainer.model.train()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        trainer.model.train(was_training)
        random.setstate(states[0])
        np.random.set_state(states[1])
        trainer._metrics, trainer.state.num_input_tokens_seen = metrics, tokens
