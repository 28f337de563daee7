"""Where a training step's wall time goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from transformers import TrainerCallback


class StepTimes(TrainerCallback):
    """Log the seconds of each optimizer step's parts, on the main process's clock.

    - `time/generation`: writing the completions, and their log-probabilities under the old and the reference policy.
    - `time/judging`: both judges, which overlap, and combining what they say.
    - `time/update`: the rest of the step: loss, gradients, optimizer.

    Evaluating, saving and logging happen between steps and are in none of them. TRL's own `step_time` leaves the
    optimizer out.

    Args:
        trainer: The trainer that runs.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.started = 0.0

    @contextmanager
    def measure(self, part: Literal["generation", "judging"]) -> Iterator[None]:
        """Count the time within to `part`, except for what an inner `measure` counts to another one."""
        started, before = time.perf_counter(), sum(self.seconds.values())
        yield
        inside = sum(self.seconds.values()) - before
        self.seconds[part] += time.perf_counter() - started - inside

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock; what an evaluation generated and judged before is no part of the step."""
        self.seconds.clear()
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the step's parts to what TRL averages until it logs."""
        if self.trainer.accelerator.device.type != "cpu":
            torch.accelerator.synchronize()  # otherwise the next part would be charged for this one's kernels
        total = time.perf_counter() - self.started
        generation, judging = self.seconds["generation"], self.seconds["judging"]
        parts = {"generation": generation, "judging": judging, "update": total - generation - judging}
        for part, seconds in parts.items():
            self.trainer._metrics["train"][f"time/{part}"].append(seconds)
