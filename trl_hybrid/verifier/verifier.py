"""The rule-based judge: right, wrong or unjudgeable, and why. Also a reward function for TRL's trainers."""

import os
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, get_args

from trl_hybrid.errors import InputError
from trl_hybrid.verifier.answers import ExtractedAnswer, extract_answer, extract_gold
from trl_hybrid.verifier.equivalence import compare_strings, compare_without_algebra, is_blank
from trl_hybrid.verifier.faults import contained
from trl_hybrid.verifier.gsm8k import compare_numbers, flexible_answer, strict_answer
from trl_hybrid.verifier.logs import log_columns, log_rates, warn_of_form
from trl_hybrid.verifier.pool import WorkerPool, default_num_workers
from trl_hybrid.verifier.rows import Row, row_texts
from trl_hybrid.verifier.unworked import leaves_work
from trl_hybrid.verifier.verdict import AnswerForm, Reason, TimedReason, Verdict, is_right


Method = Literal["math_verify", "boxed", "strict", "flexible"]
# What each method demands; an answer in that form that is wrong gets `format_reward`.
DEMANDED_FORMS: dict[Method, tuple[AnswerForm, ...]] = {
    "math_verify": ("box", "hash", "tag", "phrase"),
    "boxed": ("box",),
    "strict": ("hash",),
    "flexible": ("phrase",),
}
# What decides without algebra; `None` where it does not.
QUICK_RULES: dict[Method, Callable[[str, str], Reason | None]] = {
    "math_verify": compare_without_algebra,
    "boxed": compare_strings,
    "strict": compare_numbers,
    "flexible": compare_numbers,
}
UNREAD = ExtractedAnswer("", "text")
"""Stands for the answer of a completion on which the rules failed."""
Started = TimedReason | Future[TimedReason]
Begun = tuple[str, ExtractedAnswer | None, Started, bool]
"""A row's gold and answer, what comes of them, perhaps later, and whether the answer leaves the work to be done."""
MEMO_SIZE = 50_000
MAX_LENGTH = 10_000  # characters; a longer answer is refused unread, a longer gold cannot be judged


class MathVerifier:
    r"""Judges the final answers of completions against reference solutions, under a deadline that no answer can break.

    Strings and exact numbers are compared in this process. What needs algebra goes to worker processes: they start
    with the first such pair, are killed at the deadline or the memory cap, and end with this process whatever happens
    to it. An equal (gold, answer) pair is judged once. An instance is picklable, works from any thread, and is a TRL
    reward function.

    Args:
        method: "math_verify": every form of answer, compared by string, number, part and algebra. "boxed": the last
            box, compared by normalised string. "strict", "flexible": verl's GSM8K scorers with their holes repaired.
        correct_reward: Reward of a right answer.
        format_reward: Reward of a wrong answer in the form that the method demands.
        timeout: CPU seconds that a pair may take in its worker, so that no verdict depends on how busy the machine is.
            The clock ends a worker that gets none after 20 times as many.
        num_workers: Worker processes; by default one per core of this process's share of the machine, at most 4. 0
            judges in this process, without deadline and memory cap: for debugging.
        memory_limit_mb: Cap of a worker's address space, in MB; an idle worker has about 60 MB resident.

    Example:
        >>> with MathVerifier() as verifier:
        ...     verdict = verifier.verify("What is half of 1?", r"It is $\boxed{0.5}$.", r"\frac{1}{2}")
        >>> verdict.correct, verdict.reward, verdict.parsed_answer, verdict.reason
        (True, 1.0, '0.5', 'numeric')
    """

    __name__ = "math_verifier"

    def __init__(
        self,
        method: Method = "math_verify",
        correct_reward: float = 1.0,
        format_reward: float = 0.0,
        timeout: float = 3.0,
        num_workers: int | None = None,
        memory_limit_mb: int = 512,
    ) -> None:
        self.method: Method = method
        self.correct_reward = correct_reward
        self.format_reward = format_reward
        self.timeout = timeout
        self.num_workers = default_num_workers() if num_workers is None else num_workers
        self.memory_limit_mb = memory_limit_mb
        self._check()
        self._forget()

    def verify(self, prompt: Any, completion: Any, solution: Any) -> Verdict:
        """Judge one completion.

        Args:
            prompt: The prompt, whose echo in the completion does not count; a string, TRL messages or `None`.
            completion: A string, or TRL messages.
            solution: The reference: an answer, or a solution that holds one.
        """
        return self.verify_batch([completion], [solution], [prompt])[0]

    def verify_batch(
        self,
        completions: Sequence[Any],
        solutions: Sequence[Any],
        prompts: Sequence[Any] | None = None,
        truncated: Sequence[bool] | None = None,
    ) -> list[Verdict]:
        """Judge completions, each against the solution and the prompt of its row.

        Args:
            completions: Strings or TRL messages.
            solutions: The references.
            prompts: Prompts, whose echo does not count.
            truncated: Whether each completion was cut off by a length limit: its last number is then no answer.
        """
        return [self._verdict(*row) for row in self._begin(row_texts(completions, solutions, prompts, truncated))]

    def prefetch(
        self,
        completions: Sequence[Any],
        solutions: Sequence[Any],
        prompts: Sequence[Any] | None = None,
        completion_truncated: Sequence[bool] | None = None,
    ) -> None:
        """Hand the rows to the worker processes and return at once; judging the same rows next only collects."""
        rows = row_texts(completions, solutions, prompts, completion_truncated)
        self._ahead = rows, self._begin(rows)

    def __call__(
        self,
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Any] = (),
        solution: Sequence[Any] | None = None,
        *,
        completion_truncated: Sequence[bool] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """The reward of each completion, as TRL's trainers ask for it.

        Args:
            prompts: Prompts, one per completion.
            completions: Strings or TRL messages.
            solution: The data set's column of references, one per completion.
            completion_truncated: Whether each completion was cut off, as [`HybridGRPOTrainer`] tells.
            log_extra: Takes columns for the completions table: gold, extracted answer, reason and the answer's form.
            log_metric: Takes `verifier/timeout_rate`, `no_answer_rate`, `unjudgeable_rate`, `starved_rate`,
                `error_rate`, the share of the right answers by form (`right_in_box` ...) and milliseconds per row.
            **kwargs: The other columns, unused.
        """
        verdicts = self.verify_batch(completions, solution, prompts, completion_truncated)  # pyright: ignore[reportArgumentType]
        if not self._warned_of_form:
            self._warned_of_form = warn_of_form(verdicts, prompts)
        if log_extra is not None:
            log_columns(verdicts, log_extra)
        if log_metric is not None:
            log_rates(verdicts, log_metric)
        return [verdict.reward for verdict in verdicts]

    def close(self) -> None:
        """End the worker processes; the next use starts new ones."""
        if self._owner != os.getpid():  # the workers are the parent's
            return
        with self._lock:
            pool, self._pool = self._pool, None
            self._ahead = [], []
            self._memo = OrderedDict(
                (pair, known)
                for pair, known in self._memo.items()
                if not _is_pending(known) and not _has_failed(known)
            )
        if pool is not None:
            pool.close()

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [] if self._pool is None else self._pool.pids()

    def __enter__(self) -> "MathVerifier":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        own = {"_pool", "_memo", "_ahead", "_lock", "_owner"}
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def _check(self) -> None:
        if self.method not in get_args(Method):
            raise InputError(f"method must be one of {', '.join(get_args(Method))}; got {self.method!r}.")
        if not self.correct_reward > self.format_reward >= 0:
            raise InputError(
                "correct_reward must be greater than format_reward, and format_reward at least 0; got correct_reward="
                f"{self.correct_reward}, format_reward={self.format_reward}. Fix: for instance 1.0 and 0.1."
            )
        if self.timeout <= 0 or self.num_workers < 0 or self.memory_limit_mb < 256:
            raise InputError(
                "timeout must be above 0 seconds, num_workers at least 0 and memory_limit_mb at least 256; got "
                f"{self.timeout}, {self.num_workers} and {self.memory_limit_mb}."
            )
        if self.num_workers == 0:
            warnings.warn(
                "num_workers=0 judges in this process, without deadline and memory cap: a single answer can hang it. "
                "Use it for debugging only.",
                stacklevel=3,
            )

    def _forget(self) -> None:
        self._owner = os.getpid()
        self._pool: WorkerPool | None = None
        self._memo: OrderedDict[tuple[str, str], Started] = OrderedDict()
        self._ahead: tuple[list[Row], list[Begun]] = [], []
        self._lock = threading.Lock()
        self._warned_of_form = False

    def _begin(self, rows: list[Row]) -> list[Begun]:
        """Extract every row's answers and start what has to be judged, unless that was done ahead; do not wait."""
        if self._owner != os.getpid():  # a fork has the pool but not its threads, and pairs that nobody will judge
            self._forget()
        (rows_ahead, begun), self._ahead = self._ahead, ([], [])
        if rows == rows_ahead:
            return begun
        distinct = {row.solution for row in rows}
        golds = {solution: contained(extract_gold, solution, instead="") for solution in distinct}  # "": unjudgeable
        answers = [self._extract(row.completion, row.prompt, not row.truncated) for row in rows]
        pairs = [(golds[row.solution], answer) for row, answer in zip(rows, answers, strict=True)]
        return [
            (gold, answer, self._start(gold, answer), self._is_unworked(gold, answer, row.prompt))
            for row, (gold, answer) in zip(rows, pairs, strict=True)
        ]

    def _is_unworked(self, gold: str, answer: ExtractedAnswer | None, prompt: str) -> bool:
        """Say whether an answer leaves the work to be done; without a prompt nobody asked for work."""
        if self.method != "math_verify" or answer is None or not prompt or len(answer.text) > MAX_LENGTH:
            return False
        return contained(leaves_work, gold, answer.text, prompt, instead=False)

    def _extract(self, completion: str, prompt: str, finished: bool) -> ExtractedAnswer | None:
        if self.method in ("strict", "flexible"):
            extract = strict_answer if self.method == "strict" else flexible_answer
            return contained(extract, completion, instead=UNREAD)
        answer = contained(extract_answer, completion, prompt, finished, instead=UNREAD)
        return None if self.method == "boxed" and answer is not None and answer.form != "box" else answer

    def _start(self, gold: str, answer: ExtractedAnswer | None) -> Started:
        if is_blank(gold) or len(gold) > MAX_LENGTH:
            return "unjudgeable", 0.0
        if answer is None:
            return "no_answer", 0.0
        if answer is UNREAD:
            return "error", 0.0
        if len(answer.text) > MAX_LENGTH:
            return "guard", 0.0
        pair = gold, answer.text
        with self._lock:
            known = self._memo.get(pair)
            if known is None or _has_failed(known):
                known = self._memo[pair] = self._judge(*pair)
                while len(self._memo) > MEMO_SIZE:
                    self._memo.popitem(last=False)
        return known

    def _judge(self, gold: str, answer: str) -> Started:
        start = time.perf_counter()
        reason: Reason | None = contained(QUICK_RULES[self.method], gold, answer, instead="error")
        if reason is None or (reason == "error" and self.method == "math_verify"):
            return self._in_worker(gold, answer)  # which also finds out whether the gold is to blame
        return reason, 1000 * (time.perf_counter() - start)

    def _in_worker(self, gold: str, answer: str) -> Started:
        if self.num_workers == 0:
            from trl_hybrid.verifier.symbolic import judge

            return judge(gold, answer)["reason"], 0.0
        if self._pool is None:
            self._pool = WorkerPool(self.num_workers, self.timeout, self.memory_limit_mb)
        return self._pool.submit(gold, answer)

    def _verdict(self, gold: str, answer: ExtractedAnswer | None, started: Started, unworked: bool) -> Verdict:
        reason, milliseconds = started if isinstance(started, tuple) else started.result()
        if unworked and reason in ("numeric", "symbolic"):
            reason = "not_an_answer"
        correct, reward = is_right(reason), None
        text, form = (None, None) if answer is None else (answer.text, answer.form)
        if correct is not None:
            in_form = form in DEMANDED_FORMS[self.method]
            reward = self.correct_reward if correct else self.format_reward if in_form else 0.0
        return Verdict(correct, reward, text, reason, gold, milliseconds, form)


def _is_pending(known: Started) -> bool:
    return isinstance(known, Future) and not known.done()


def _has_failed(known: Started) -> bool:
    """Whether what came of a pair is no verdict but the machine's failure, which may have passed by now."""
    if not isinstance(known, Future) or not known.done():
        return False
    return known.cancelled() or known.exception() is not None or known.result()[0] == "starved"
