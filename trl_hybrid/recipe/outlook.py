"""What a run is going to do: how many steps and answers, on what; said before its first step."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from trl import ModelConfig

from trl_hybrid.training.config import HybridGRPOConfig


LONG = 0.5
"""Share of training's completions above which one measurement of held-out accuracy is called long."""


@dataclass(frozen=True)
class Work:
    """How much a run generates.

    Attributes:
        problems: Answered before a generation's first step, over all processes.
        group: Completions of each.
        steps: Steps of the optimizer.
        steps_a_generation: Steps that train on one generation's completions; below 1 where a step takes several.
        passes: Times that each problem is trained on, `None` where problems are streamed.
    """

    problems: int
    group: int
    steps: int
    steps_a_generation: float
    passes: float | None

    @property
    def generations(self) -> int:
        """Times that completions are generated."""
        return math.ceil(self.steps / self.steps_a_generation)

    @property
    def completions(self) -> int:
        """Completions of the whole run."""
        return self.generations * self.problems * self.group


def work_of(args: HybridGRPOConfig, rows: int | None, processes: int) -> Work:
    """Count what a run generates, as TRL's sampler and transformers' trainer do.

    Args:
        args: The settings.
        rows: Problems to train on, at least one generation's; `None` where they are streamed, with `max_steps` set.
        processes: How many train together.

    Returns:
        The work.
    """
    group, batch = args.num_generations or 1, args.generation_batch_size or 1
    problems = batch // group
    rows_of_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    steps_a_generation = batch * args.num_iterations / rows_of_step
    each_pass = None if rows is None else rows // problems * steps_a_generation
    steps = args.max_steps if args.max_steps > 0 or each_pass is None else math.ceil(args.num_train_epochs * each_pass)
    passes = None if rows is None else steps / steps_a_generation * problems / rows
    return Work(problems, group, steps, steps_a_generation, passes)


def outlook(work: Work, args: HybridGRPOConfig, model: ModelConfig, measured: int, answers: int) -> str:
    """Say in a few lines what will happen.

    Args:
        work: As of [`work_of`].
        args: The trainer's settings.
        model: The policy's.
        measured: Held-out problems that are measured; 0 for none.
        answers: To each of them in one measurement.

    Returns:
        Lines for a terminal.
    """
    each = f"{work.problems} problems x {work.group} = {work.problems * work.group:,} completions {_rhythm(work)}"
    lines = [
        f"What will happen, on {_device(args, model)}:",
        f"  training  {work.steps} step{'s' * (work.steps != 1)}, {each}, {work.completions:,} in all{_passes(work)}",
    ]
    if measured:
        lines.append(f"  accuracy  {measured} problems x {answers} = {measured * answers:,} answers before and after")
        if measured * answers > LONG * work.completions:
            lines.append("            together more than training generates; for fewer: --max_test_rows")
    return "\n".join(lines)


def _rhythm(work: Work) -> str:
    """Say how often completions are generated."""
    if work.steps_a_generation == 1:
        return "a step"
    return f"every {work.steps_a_generation:g} steps" if work.steps_a_generation > 1 else "several times a step"


def _passes(work: Work) -> str:
    if work.passes is None:
        return ""
    return f" ({work.passes:.1f} passes)" if work.passes >= 1 else f" ({work.passes:.0%} of the problems)"


def _device(args: HybridGRPOConfig, model: ModelConfig) -> str:
    """Name the device and the number types."""
    device: Any = args.device
    name = "the CPU" if device.type == "cpu" else str(device)
    if device.type == "cuda":
        name = f"{max(1, args.world_size)} x {torch.cuda.get_device_name(device)}"
    elif not torch.accelerator.is_available():
        name += " (no GPU is here)"
    mixed = None if args.mixed_precision == "no" else args.mixed_precision  # `accelerate launch` has a say in it
    types = f"weights in {model.dtype or 'their own type'}" + (f", computing in {mixed}" if mixed else "")
    again = "" if args.gradient_checkpointing else "out"
    return f"{name}, {types}, with{again} gradient checkpointing"
