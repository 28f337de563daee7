"""Claim: a hybrid step costs at most 3 % more CPU time than stock GRPO, and verifying hides behind scoring.

Step: `HybridGRPOTrainer` and `trl.GRPOTrainer` with the same two reward functions, so that what differs is combining,
weighting and logging. Each trains in a process of its own; they take turns step by step, so that drift of the machine
hits both alike. The learning rate is 0 and the seed the same: both see the same generations, which is checked. It is
CPU time of the training process, one thread. On a busy machine the same step's CPU time varies by a fifth, so the
claim is decided by what the hybrid trainer's own methods use, without TRL's methods inside them and without the start
of the verifying, which is the verifier's work; it is divided by the rest of the step. The ratio of hybrid and stock
steps is printed beside it.

Judging: the trainer's judging of a batch, both judges, combining and logging, against each judge alone on the same
batch. So many answers need algebra that the verifier's process has about half of the tiny reward model's work, more
than beside a 7B one; with --algebra 0.5 it has as much, the hardest case to hide. Every round has new answers, and the
reward model remembers nothing, so that no memo helps. Wall time, the least of the rounds each, because other work on
the machine only adds; it takes two free cores.

Examples:
  python benchmarks/step_overhead.py
  python benchmarks/step_overhead.py --steps 6 --rounds 3                               the script works: a minute
"""

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import FunctionType
from typing import Any

import datasets
import torch
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging as logging_of_transformers
from trl import GRPOConfig, GRPOTrainer

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.data import load_tasks


ROOT = Path(__file__).resolve().parent.parent
POLICY, REWARD_MODEL, TASKS = (
    str(ROOT / "data" / name) for name in ("embedded_policy", "embedded_reward_model", "addition")
)
SYSTEM_PROMPT = r"Please reason step by step, and check your final answer within \boxed{}."

STEP_LIMIT = 1.03
JUDGING_LIMIT = 1.1
WARM_UP_STEPS = 2
GROUP = 8
PROMPTS = 8
FILLER = (
    "We take a = {a} and b = {b} and put both sides together step by step, so that nothing is lost on the way. " * 3
)


class OwnTime:
    """CPU seconds of the hybrid trainer's own methods, without the calls of TRL's inside them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside: list[float] = []

    def watch(self) -> None:
        """Time every method that overrides one of TRL's, that one too, and the verifier's start."""
        for name, method in list(vars(HybridGRPOTrainer).items()):
            if isinstance(method, FunctionType) and hasattr(GRPOTrainer, name) and name != "__init__":
                self._time(GRPOTrainer, name, own=False)
                self._time(HybridGRPOTrainer, name, own=True)
        self._time(MathVerifier, "prefetch", own=False)

    def _time(self, owner: type, name: str, own: bool) -> None:
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            self._inside.append(0.0)
            try:
                return original(*args, **kwargs)
            finally:
                total = time.process_time() - started
                self.seconds += own * (total - self._inside.pop())
                if self._inside:
                    self._inside[-1] += total

        setattr(owner, name, timed)


class TakeTurns(TrainerCallback):
    """Let a step begin when it is this process's turn, and say what it cost.

    Args:
        pipe: Gives a turn with any object; gets the step's CPU seconds, its own ones, and what it trained on.
        own: Counts them.
    """

    def __init__(self, pipe: Connection, own: OwnTime) -> None:
        self.pipe, self.own = pipe, own
        self.started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the turn."""
        self.pipe.recv()
        self.own.seconds = 0.0
        self.started = time.process_time()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Report the step, of which logging is a part."""
        if logs and "completions/mean_length" in logs and "train_runtime" not in logs:
            keys = ("completions/mean_length", "rewards/math_verifier/mean", "rewards/reward_model/mean")
            seconds = time.process_time() - self.started
            self.pipe.send((seconds, self.own.seconds, [logs[key] for key in keys]))


def settings(folder: str, steps: int) -> dict[str, Any]:
    """What both trainers are given."""
    return {
        "output_dir": folder,
        "num_generations": GROUP,
        "per_device_train_batch_size": GROUP * PROMPTS,
        "max_completion_length": 40,
        "max_steps": steps,
        "learning_rate": 0.0,
        "scale_rewards": "none",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def make_reward_model() -> RewardModel:
    """Load the reward model so that it computes every score."""
    return RewardModel(REWARD_MODEL, system_prompt=SYSTEM_PROMPT, device="cpu", cache_size=0)


def train(kind: str, steps: int, pipe: Connection) -> None:
    """Train the one or the other, step by step as `pipe` says. Runs in a process of its own."""
    be_quiet()
    own = OwnTime()
    with MathVerifier(num_workers=1) as verifier, tempfile.TemporaryDirectory() as folder:
        tasks = load_tasks(TASKS)
        if kind == "hybrid":
            own.watch()
            trainer = HybridGRPOTrainer(
                POLICY,
                args=HybridGRPOConfig(**settings(folder, steps)),
                train_dataset=tasks,
                verifier=verifier,
                reward_model=make_reward_model(),
            )
        else:
            judges = [verifier, make_reward_model()]
            trainer = GRPOTrainer(POLICY, judges, GRPOConfig(**settings(folder, steps)), train_dataset=tasks)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(TakeTurns(pipe, own))
        trainer.train()


def be_quiet() -> None:
    """One thread, and no bars and warnings between the figures."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    logging_of_transformers.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)


def measure_steps(steps: int) -> list[dict[str, float]]:
    """Let both train in turn.

    Returns:
        CPU seconds of each step after the warm-up: `hybrid`, `stock`, and `own`, the hybrid trainer's own methods.

    Raises:
        RuntimeError: They did not train on the same completions.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for kind in ("hybrid", "stock"):
        pipes[kind], end = context.Pipe()
        processes.append(context.Process(target=train, args=(kind, steps + WARM_UP_STEPS, end)))
        processes[-1].start()
        end.close()
    seconds = []
    for step in range(steps + WARM_UP_STEPS):
        order = ("hybrid", "stock") if step % 2 else ("stock", "hybrid")
        reports = {kind: take_step(pipes[kind]) for kind in order}
        (hybrid, own, judged), (stock, _, judged_too) = reports["hybrid"], reports["stock"]
        if judged != judged_too:
            raise RuntimeError(f"Step {step + 1} had other completions in the hybrid trainer: {judged}, {judged_too}.")
        seconds.append({"hybrid": hybrid, "stock": stock, "own": own})
    for process in processes:
        process.join()
    return seconds[WARM_UP_STEPS:]


def take_step(pipe: Connection) -> tuple[Any, ...]:
    """Give a turn and wait for the step's report."""
    pipe.send("step")
    return pipe.recv()


def new_batch(rows: int, algebra: float, generator: random.Random) -> tuple[list[Any], list[Any], list[str]]:
    """Prompts, completions and golds; about half of the answers are right, a share of `algebra` in another form."""
    prompts, completions, golds = [], [], []
    for _ in range(rows):
        a, b = generator.sample(range(2, 100_000), 2)
        slip = generator.randrange(2)
        if generator.random() < algebra:
            gold, answer = f"{b}+x(x+{a})", f"x^2+{a}x+{b + slip}"
        else:
            gold, answer = str(a * b), str(a * b + slip)
        prompts.append([{"role": "user", "content": f"Expand {b} + x(x + {a}) or calculate {a} * {b}."}])
        text = f"{FILLER.format(a=a, b=b)}The answer is \\boxed{{{answer}}}."
        completions.append([{"role": "assistant", "content": text}])
        golds.append(gold)
    return prompts, completions, golds


def wall(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_judging(rounds: int, rows: int, algebra: float) -> list[dict[str, float]]:
    """Judge new batches in the trainer and by each judge alone.

    Returns:
        Wall seconds of each round: `together`, `verifier`, `reward_model`.
    """
    generator, times = random.Random(0), []
    with (
        MathVerifier(num_workers=1) as verifier,
        MathVerifier(num_workers=1) as alone,
        tempfile.TemporaryDirectory() as folder,
    ):
        reward_model = make_reward_model()
        trainer = HybridGRPOTrainer(
            POLICY,
            args=HybridGRPOConfig(**settings(folder, 1)),
            train_dataset=load_tasks(TASKS),
            verifier=verifier,
            reward_model=reward_model,
        )
        for _ in range(rounds + 1):
            times.append(judge(trainer, alone, reward_model, *new_batch(rows, algebra, generator)))
    return times[1:]


def judge(
    trainer: HybridGRPOTrainer,
    alone: MathVerifier,
    reward_model: RewardModel,
    prompts: list[Any],
    completions: list[Any],
    golds: list[str],
) -> dict[str, float]:
    """Judge a batch in the trainer, then by a verifier that has not seen it and by the reward model."""
    inputs = [{"prompt": prompt, "solution": gold} for prompt, gold in zip(prompts, golds, strict=True)]
    ids = [[5, 2]] * len(prompts)  # whole answers; the judges read the text
    return {
        "together": wall(lambda: trainer._calculate_rewards(inputs, prompts, completions, ids)),
        "verifier": wall(lambda: alone(prompts=prompts, completions=completions, solution=golds)),
        "reward_model": wall(lambda: reward_model(prompts, completions)),
    }


def verdict(ratio: float, limit: float) -> str:
    """Say whether a ratio is within its limit."""
    return f"ratio {ratio:.3f}, at most {limit}: {'met' if ratio <= limit else 'missed'}"


def print_steps(seconds: list[dict[str, float]]) -> None:
    """Print what the hybrid trainer adds to a step, and how its steps compare with the stock ones."""
    hybrid, stock, own = (1e3 * statistics.median(step[name] for step in seconds) for name in seconds[0])
    added = statistics.median(1 + step["own"] / (step["hybrid"] - step["own"]) for step in seconds)
    low, middle, high = statistics.quantiles((step["hybrid"] / step["stock"] for step in seconds), n=4)
    size = f"{len(seconds)} steps of {GROUP * PROMPTS} completions"
    print(f"step     {size}, CPU: hybrid {hybrid:.0f} ms, of which its own {own:.1f} ms; stock {stock:.0f} ms")
    print(f"         {verdict(added, STEP_LIMIT)} (step by step {middle:.3f}, middle half {low:.3f} to {high:.3f})")


def print_judging(times: list[dict[str, float]], rows: int) -> None:
    """Print the ratio of judging to the slower judge, and what one judge after the other would take."""
    least = {name: min(row[name] for row in times) for name in times[0]}
    slower, both = max(least["verifier"], least["reward_model"]), least["verifier"] + least["reward_model"]
    parts = ", ".join(f"{name.replace('_', ' ')} {1e3 * value:.0f} ms" for name, value in least.items())
    print(f"judging  {len(times)} batches of {rows} completions, wall: {parts}")
    print(
        f"         {verdict(least['together'] / slower, JUDGING_LIMIT)} "
        f"(one judge after the other: {both / slower:.3f})"
    )


def main() -> None:
    """Print both ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="steps of each trainer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="batches that are judged (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=128, help="completions of such a batch (default: %(default)s)")
    parser.add_argument(
        "--algebra", type=float, default=0.25, help="share of its answers that need algebra (default: %(default)s)"
    )
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    be_quiet()
    print_steps(measure_steps(arguments.steps))
    print_judging(measure_judging(arguments.rounds, arguments.rows, arguments.algebra), arguments.rows)


if __name__ == "__main__":
    main()
