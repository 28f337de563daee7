"""How often the policy is right, measured while it trains, on problems that it is not trained on."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback
from trl.models import unwrap_model_for_generation

from trl_hybrid.policy.generation import Decoding, generate_completions
from trl_hybrid.runs.folder import read_json, write_json
from trl_hybrid.training.stop_signals import StopSignals
from trl_hybrid.verifier import MathVerifier


SAMPLES = 8
"""Answers drawn for each held-out problem."""

ANSWERS = SAMPLES + 1
"""With the greedy one."""

MOST, FEWEST = 256, 16
"""Held-out problems that are measured unless the user names a number."""


def accuracy(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[dict[str, Any]],
    verifier: MathVerifier,
    decoding: Decoding,
    accelerator: Accelerator,
    batch_size: int = 64,
    description: str | None = None,
    stop: StopSignals | None = None,
) -> dict[str, float] | None:
    """Measure the share of right answers, over all processes.

    The mean of n samples is the mean and not pass@n. No random state is touched, and the number of processes makes no
    difference to what is sampled. Problems whose gold cannot be judged do not count.

    Args:
        model: The policy in eval mode, unwrapped, in the same state on every process.
        tokenizer: The policy's tokenizer.
        tasks: Rows of `prompt` and `solution`, the same on every process.
        verifier: Judges the answers.
        decoding: How to answer.
        accelerator: Says which share of the problems is this process's.
        batch_size: Prompts a call of `generate`.
        description: Shown before the progress bar of the main process.
        stop: Told to stop, it breaks the measurement off.

    Returns:
        `greedy` if it is asked for, and `mean_of_<n>` if n is above 0: shares in [0, 1], the same on every process;
        NaN where no gold can be judged. `None` on every process where the measurement was broken off.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    # Every process makes the same number of calls: under ZeRO-3 a process that stops early leaves the others waiting.
    count = -(-len(tasks) // world)
    own = [(index % len(tasks), index < len(tasks)) for index in range(rank, count * world, world)]
    hidden = description is None or not accelerator.is_main_process
    judged: list[list[bool]] = []
    for start in tqdm(range(0, len(own), batch_size), desc=description, disable=hidden, leave=False):
        numbers = [number for number, _ in own[start : start + batch_size]]
        rows = [tasks[number] for number in numbers]
        prompts = [row["prompt"] for row in rows]
        told = (lambda: bool(stop.received)) if stop else None
        answers = generate_completions(model, tokenizer, prompts, numbers, decoding, told)
        if stop and stop.ask():
            return None
        verdicts = verifier.verify_batch(
            [answer.text for group in answers for answer in group],
            [row["solution"] for row in rows for _ in range(decoding.answers)],
            [prompt for prompt in prompts for _ in range(decoding.answers)],
            [answer.truncated for group in answers for answer in group],
        )
        for place, (_, real) in enumerate(own[start : start + batch_size]):
            group = [v.correct for v in verdicts[place * decoding.answers : (place + 1) * decoding.answers]]
            if real and None not in group:
                judged.append([bool(correct) for correct in group])
    everyone = gather_object(judged)
    return _shares(everyone, decoding)


def problems_to_measure(available: int, completions: int, answers: int) -> int:
    """Choose how many held-out problems are measured, so that a short run is not mostly measurement.

    Measuring before and after training takes no more answers than training generates: it is two passes over the
    problems.

    Args:
        available: Held-out problems there are.
        completions: That training will generate.
        answers: To each problem, of one pass.

    Returns:
        At most `available` and `MOST`; at least `FEWEST` where there are as many.

    Example:
        100 steps of 64 completions pay for 355 problems with nine answers each, twice; forty for 142, two for seven.
        >>> problems_to_measure(1319, 6400, 9), problems_to_measure(1319, 2560, 9), problems_to_measure(1319, 128, 9)
        (256, 142, 16)
        >>> problems_to_measure(10, 6400, 9)  # all there are
        10
    """
    return min(available, MOST, max(FEWEST, completions // (2 * answers)))


def _shares(judged: Sequence[Sequence[bool]], decoding: Decoding) -> dict[str, float]:
    """Average over problems; each row holds the greedy answer first if there is one."""
    shares = {}
    if decoding.greedy:
        shares["greedy"] = _share([row[0] for row in judged])
    if decoding.num_samples:
        sampled = [right for row in judged for right in row[int(decoding.greedy) :]]
        shares[f"mean_of_{decoding.num_samples}"] = _share(sampled)
    return shares


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right) if right else float("nan")


def _digest(tasks: Sequence[dict[str, Any]]) -> str:
    """Tell these problems from others."""
    return hashlib.sha256(json.dumps(list(tasks)).encode()).hexdigest()[:16]


class HeldOutAccuracy(TrainerCallback):
    """Measure greedy and sampled accuracy before the first and after the last training step, and in between if asked.

    What is measured in between is logged as `eval_accuracy_greedy` and `eval_accuracy_mean_of_<num_samples>`, which
    trackers show under `eval/`. Training goes on as if nothing had been measured.

    Args:
        trainer: The trainer to measure; its model, tokenizer, temperature and completion length are used.
        tasks: Held-out rows of `prompt` and `solution`.
        verifier: Judges the answers.
        folder: The run's folder; the first measurement is kept there.
        checkpoint: The checkpoint that this run goes on from. The first measurement is then the one that lies beside
            it; where there is none, or one on other problems, there is no figure of before.
        num_samples: Answers sampled for each problem.
        every: Steps between measurements during training; None for none.
        stop: Told to stop, it breaks a measurement off, and nothing of that one is kept.
    """

    FILE = "accuracy_before.json"

    def __init__(
        self,
        trainer: Any,
        tasks: Any,
        verifier: MathVerifier,
        folder: Path,
        checkpoint: str | None = None,
        num_samples: int = SAMPLES,
        every: int | None = None,
        stop: StopSignals | None = None,
    ) -> None:
        self.trainer, self.tasks, self.verifier, self.num_samples = trainer, tasks, verifier, num_samples
        self.folder, self.every, self.stop = folder, every, stop
        self.resumed = checkpoint is not None
        earlier = read_json(Path(checkpoint).parent / self.FILE) if checkpoint else {}
        self.problems = _digest(tasks)
        self.before: dict[str, float] = earlier["accuracy"] if earlier.get("problems") == self.problems else {}
        self.after: dict[str, float] = {}
        self.measured_step: int | None = None

    def figures(self) -> dict[str, dict[str, float | None]]:
        """Return `{"greedy": {"before": share, "after": share}, "mean_of_<num_samples>": {...}}`; `None`: unknown."""
        return {name: {"before": self.before.get(name), "after": after} for name, after in self.after.items()}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the policy as it is before the first step."""
        if self.resumed:
            return
        measured = self._measure("before training")
        if measured is None:
            return
        self.before = measured
        if state.is_world_process_zero:
            write_json(self.folder / self.FILE, {"problems": self.problems, "accuracy": self.before})
        if self.every:
            self._log(self.before)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure after every so many steps, and after the last one."""
        if self.every and (state.global_step % self.every == 0 or state.global_step == state.max_steps):
            measured = self._measure(f"at step {state.global_step}")
            if measured is not None:
                self.after, self.measured_step = measured, state.global_step
                self._log(self.after)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the policy as training leaves it."""
        if self.measured_step is None or self.measured_step != state.global_step:
            self.after = self._measure("after training") or {}

    def _log(self, figures: dict[str, float]) -> None:
        due = self.trainer.control.should_log
        # Not the trainer's own `log`: it would take the training metrics of the step that is not over along.
        Trainer.log(self.trainer, {f"eval_accuracy_{name}": share for name, share in figures.items()})
        self.trainer.control.should_log = due  # logging takes it back, and the step's own metrics are still to come
        if self.trainer.is_world_process_zero():
            shares = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in figures.items())
            tqdm.write(f"step {self.trainer.state.global_step:4d} | accuracy on {len(self.tasks)} problems: {shares}")

    def _measure(self, when: str) -> dict[str, float] | None:
        trainer = self.trainer
        decoding = Decoding(
            num_samples=self.num_samples,
            max_completion_length=trainer.max_completion_length,
            temperature=trainer.temperature,
            top_p=trainer.top_p,
            top_k=trainer.top_k,
            min_p=trainer.min_p,
            repetition_penalty=trainer.repetition_penalty,
            seed=trainer.args.seed,
            chat_template_kwargs=trainer.chat_template_kwargs,
        )
        unwrapped: Any = unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator)
        with unwrapped as model:
            was_training = model.training
            model.eval()
            try:
                return accuracy(
                    model,
                    trainer.processing_class,
                    self.tasks,
                    self.verifier,
                    decoding,
                    trainer.accelerator,
                    # At most `num_samples` sequences at a time for each prompt of an evaluation batch.
                    batch_size=max(1, trainer.args.per_device_eval_batch_size * self.num_samples // decoding.answers),
                    description=f"Accuracy {when}",
                    stop=self.stop,
                )
            finally:
                model.train(was_training)
