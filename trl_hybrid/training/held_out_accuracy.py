"""How often the policy is right, measured while it trains, on problems that it is not trained on."""

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback
from trl.models import unwrap_model_for_generation

from trl_hybrid.evaluation.metrics import bootstrap_interval
from trl_hybrid.policy.generation import Decoding, generate_completions
from trl_hybrid.runs.folder import read_json, write_json
from trl_hybrid.training.stop_signals import StopSignals
from trl_hybrid.verifier import MathVerifier


SAMPLES = 8
"""Answers drawn for each held-out problem."""

ANSWERS = SAMPLES + 1
"""With the greedy one."""

Judged = dict[int, list[bool]]
"""Which answers to a problem are right, the greedy one first if there is one, by the problem's number."""

MOST, FEWEST = 256, 16
"""Held-out problems that are measured unless the user names a number."""


def judged_answers(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[dict[str, Any]],
    verifier: MathVerifier,
    decoding: Decoding,
    accelerator: Accelerator,
    batch_size: int = 64,
    description: str | None = None,
    stop: StopSignals | None = None,
) -> Judged | None:
    """Answer problems and judge the answers, over all processes.

    No random state is touched, and the number of processes makes no difference to what is sampled.

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
        The answers to each problem whose gold can be judged, the same on every process. `None` on every process where
        the measurement was broken off.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    # Every process makes the same number of calls: under ZeRO-3 a process that stops early leaves the others waiting.
    count = -(-len(tasks) // world)
    own = [(index % len(tasks), index < len(tasks)) for index in range(rank, count * world, world)]
    hidden = description is None or not accelerator.is_main_process
    judged: list[tuple[int, list[bool]]] = []
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
        for place, (number, real) in enumerate(own[start : start + batch_size]):
            group = [v.correct for v in verdicts[place * decoding.answers : (place + 1) * decoding.answers]]
            if real and None not in group:
                judged.append((number, [bool(correct) for correct in group]))
    return dict(sorted(gather_object(judged)))


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


def accuracy(judged: Collection[Sequence[bool]], decoding: Decoding) -> dict[str, float]:
    """Average over problems; the mean of n samples is the mean and not pass@n.

    Args:
        judged: Of each problem which answers are right.
        decoding: How they were drawn.

    Returns:
        `greedy` if it was asked for, and `mean_of_<n>` if n is above 0: shares in [0, 1]; NaN without a problem.

    Example:
        >>> accuracy([[True, False, True], [False, False, False]], Decoding(num_samples=2))
        {'greedy': 0.5, 'mean_of_2': 0.25}
    """
    shares = [_shares(row, decoding) for row in judged]
    return {name: _mean([row[name] for row in shares]) for name in _shares([False] * decoding.answers, decoding)}


def change(before: Judged, after: Judged, decoding: Decoding, seed: int = 0) -> dict[str, tuple[float, float, float]]:
    """Subtract what was measured before, problem by problem.

    Returns:
        For each figure of [`accuracy`] the mean difference and the ends of its 95 % interval, a bootstrap over
        problems; nothing where no problem was measured twice.
    """
    both = [(_shares(before[number], decoding), _shares(after[number], decoding)) for number in before.keys() & after]
    if not both:
        return {}
    names = list(both[0][0])
    values = np.array([[new[name] - old[name] for name in names] for old, new in both])
    low, high = bootstrap_interval(values, seed)
    return {name: (float(values[:, i].mean()), float(low[i]), float(high[i])) for i, name in enumerate(names)}


def _shares(right: Sequence[bool], decoding: Decoding) -> dict[str, float]:
    """Of one problem's answers."""
    shares = {"greedy": float(right[0])} if decoding.greedy else {}
    if decoding.num_samples:
        shares[f"mean_of_{decoding.num_samples}"] = _mean(right[int(decoding.greedy) :])
    return shares


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


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
        # An earlier version kept the shares alone, of which no change can be said.
        known = earlier.get("right", {}) if earlier.get("problems") == self.problems else {}
        self.before: Judged = {int(number): right for number, right in known.items()}
        self.after: Judged = {}
        self.measured_step: int | None = None

    def figures(self) -> dict[str, dict[str, float | None]]:
        """Return what was measured.

        Returns:
            `{"greedy": figures, "mean_of_<num_samples>": figures}`, each with the shares `before` and `after`, their
            difference `change`, and the ends `low` and `high` of its 95 % interval, a bootstrap over problems.
            `None`: unknown.
        """
        if not self.after:
            return {}
        before = self._accuracy(self.before) if self.before else {}
        changes = change(self.before, self.after, self.drawn)
        return {
            name: {
                "before": before.get(name),
                "after": after,
                **dict(zip(("change", "low", "high"), changes.get(name, (None,) * 3), strict=True)),
            }
            for name, after in self._accuracy(self.after).items()
        }

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the policy as it is before the first step; where the run goes on, keep what was measured."""
        if self.resumed:
            if self.before and state.is_world_process_zero:
                self._keep()  # from another folder it would be lost with the next stop
            return
        measured = self._measure("before training")
        if measured is None:
            return
        self.before = measured
        if state.is_world_process_zero:
            self._keep()
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

    def _keep(self) -> None:
        write_json(self.folder / self.FILE, {"problems": self.problems, "right": self.before})

    @property
    def drawn(self) -> Decoding:
        """How many answers there are to a problem."""
        return Decoding(num_samples=self.num_samples)

    def _accuracy(self, judged: Judged) -> dict[str, float]:
        return accuracy(judged.values(), self.drawn)

    def _log(self, judged: Judged) -> None:
        figures = self._accuracy(judged)
        due = self.trainer.control.should_log
        # Not the trainer's own `log`: it would take the training metrics of the step that is not over along.
        Trainer.log(self.trainer, {f"eval_accuracy_{name}": share for name, share in figures.items()})
        self.trainer.control.should_log = due  # logging takes it back, and the step's own metrics are still to come
        if self.trainer.is_world_process_zero():
            shares = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in figures.items())
            tqdm.write(f"step {self.trainer.state.global_step:4d} | accuracy on {len(self.tasks)} problems: {shares}")

    def _measure(self, when: str) -> Judged | None:
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
                return judged_answers(
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
