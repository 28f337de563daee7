"""Train a few steps as one process of a launch, and report where the time went and how much memory it took.

accelerate launch benchmarks/launches/worker.py SETTINGS.json OUTPUT.json

TRL's own profiling contexts are listened to: `transformers.generate`, `reward_model`, `math_verifier` and
`_prepare_inputs`, which holds all three. What a step takes beside `_prepare_inputs` is loss, backward and optimizer.
"""

import json
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl.extras.profiling import ProfilingContext

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.training.attention import turn_off_cudnn_attention
from trl_hybrid.training.leaving import leave_together


NAMES = {"transformers.generate": "generation", "reward_model": "reward model", "math_verifier": "verifier"}
WHOLE = "_prepare_inputs"


class Clock(TrainerCallback):
    """Keeps the seconds of each step and of its parts."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.started = 0.0
        self.heard: defaultdict[str, float] = defaultdict(float)

    def listen(self) -> None:
        """Take what TRL's profiling contexts measure, in every process."""

        def log(context: ProfilingContext, duration: float) -> None:
            self.heard[context.name.partition(".")[2]] += duration

        setattr(ProfilingContext, "_log_metrics", log)  # noqa: B010 - it is a method of TRL's

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the step."""
        self.heard.clear()
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Split the step into its parts."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        step = time.perf_counter() - self.started
        parts = {part: self.heard[name] for name, part in NAMES.items()}
        parts["loss"] = step - self.heard[WHOLE]
        parts["other"] = self.heard[WHOLE] - sum(parts[part] for part in NAMES.values())
        self.steps.append({"step": step, **parts})


def make_trainer(settings: dict[str, Any], folder: str) -> HybridGRPOTrainer:
    """Load both models as the settings say."""
    args = HybridGRPOConfig(folder, **settings["training"])
    tasks = Dataset.from_list(settings["tasks"])
    return HybridGRPOTrainer(
        settings["policy"],
        args=args,
        train_dataset=tasks,
        verifier=MathVerifier(num_workers=1),
        reward_model=RewardModel(
            settings["reward_model"],
            placement=settings["placement"],
            system_prompt=settings["system_prompt"],
            cache_size=0,
            device=args.device,
        ),
        peft_config=LoraConfig(**settings["lora"]) if settings["lora"] else None,
    )


def memory() -> dict[str, int]:
    """Return the peak of this process's GPU in bytes, with the CUDA context; nothing on a CPU."""
    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    return {
        "peak_bytes": torch.cuda.max_memory_allocated() + context,
        "reserved_bytes": torch.cuda.max_memory_reserved() + context,
    }


def report(trainer: HybridGRPOTrainer, clock: Clock, warm_up: int) -> dict[str, Any]:
    """Average over processes and steps after the warm-up, all of which every process made."""
    everyone = gather_object([{"steps": clock.steps[warm_up:], "memory": memory()}])
    steps = [step for process in everyone for step in process["steps"]]
    seconds = [max(times) for times in zip(*([s["step"] for s in p["steps"]] for p in everyone), strict=True)]
    lengths = [row["completions/mean_length"] for row in trainer.state.log_history if "completions/mean_length" in row]
    rows = int(trainer.args.generation_batch_size or 0)
    return {
        "grad_norms": finite_norms(trainer.state.log_history),
        "processes": len(everyone),
        "completions": rows,
        "completion_tokens": statistics.fmean(lengths),
        "seconds": seconds,
        "completions_per_second": rows / statistics.median(seconds),
        "parts": {part: statistics.fmean(step[part] for step in steps) for part in steps[0] if part != "step"},
        **{key: max(process["memory"][key] for process in everyone) for key in everyone[0]["memory"]},
    }


def finite_norms(log_history: list[dict[str, float]]) -> list[float]:
    """Return the norm of every step's gradient.

    Raises:
        ArithmeticError: One is not finite, as attention's backward has made it on some GPUs.
    """
    norms = [row["grad_norm"] for row in log_history if "grad_norm" in row]
    if not all(map(math.isfinite, norms)):
        raise ArithmeticError(f"The gradient must be finite at every step, its norms are {norms}.")
    return norms


def main(settings_file: Path, output: Path) -> None:
    """Train and write the report."""
    settings = json.loads(settings_file.read_text())
    turn_off_cudnn_attention()
    clock = Clock()
    clock.listen()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(settings, folder)
        trainer.add_callback(clock)
        trainer.train()
        found = report(trainer, clock, settings["warm_up"])
        if trainer.accelerator.is_main_process:
            output.write_text(json.dumps(found))
        trainer.verifier.close()
        leave_together()
        trainer.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
