"""Warm worker processes behind a queue: every pair has a hard deadline, a stuck worker is killed and replaced."""

import contextlib
import logging
import os
import queue
import threading
import time
import weakref
from concurrent.futures import Future
from typing import NamedTuple

from trl_hybrid.verifier.faults import report_fault
from trl_hybrid.verifier.numeric import parse_number
from trl_hybrid.verifier.process import PATIENCE, Failure, WorkerProcess
from trl_hybrid.verifier.verdict import Reason, TimedReason


logger = logging.getLogger(__name__)

# An innocent answer: where even this one fails, it is the gold that cannot be handled.
PROBE = "7919"
FAILURES: dict[Failure, Reason] = {"late": "timeout", "starved": "starved", "dead": "crash"}
UNFINISHED: frozenset[Reason] = frozenset({"timeout", "memory", "crash", "error"})


class Job(NamedTuple):
    """A pair of answers, and where what comes of it is awaited."""

    gold: str
    answer: str
    future: "Future[TimedReason]"


class WorkerPool:
    """`num_workers` processes, each fed by a thread of its own.

    The threads live as long as the pool, and have to: the kernel kills a worker when the thread that started it ends.

    Args:
        num_workers: Number of processes, at least 1.
        timeout: CPU seconds that a pair may take before its process is killed.
        memory_limit_mb: Cap of each process's address space, in MB.
    """

    def __init__(self, num_workers: int, timeout: float, memory_limit_mb: int) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._workers = [WorkerProcess(timeout, memory_limit_mb) for _ in range(num_workers)]
        self._threads = [
            threading.Thread(target=_serve, args=(worker, self._jobs, self._closed), daemon=True, name="verifier")
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()
        # Also where nobody closes the pool: when it is collected, or at the interpreter's end.
        self._finalizer = weakref.finalize(self, _shut_down, self._workers, self._jobs, self._closed)

    def submit(self, gold: str, answer: str) -> "Future[TimedReason]":
        """Queue one pair; the future holds its reason, or the error that keeps workers from starting."""
        future: Future[TimedReason] = Future()
        self._jobs.put(Job(gold, answer, future))
        return future

    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [pid for worker in self._workers if (pid := worker.pid) is not None]

    def close(self) -> None:
        """Kill the workers and cancel what is queued."""
        self._finalizer()
        for thread in self._threads:
            thread.join(timeout=5.0)  # daemons: one that hangs must not hold up the end of a run


def default_num_workers() -> int:
    """One worker per core of this process's share of the machine, at least 1 and at most 4."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(4, len(os.sched_getaffinity(0)) // max(1, processes)))


def _serve(worker: WorkerProcess, jobs: "queue.SimpleQueue[Job | None]", closed: threading.Event) -> None:
    """Run jobs on one worker until the pool closes."""
    # An early start only saves time: the first job starts it again, or says why not.
    with contextlib.suppress(OSError, RuntimeError, TypeError):
        worker.start()
    while (job := jobs.get()) is not None:
        if not job.future.set_running_or_notify_cancel():
            continue
        try:
            found = _judge(worker, job.gold, job.answer)
            if closed.is_set():
                raise RuntimeError("the verifier was closed while it was judging; verify again")
            job.future.set_result(found)
        except Exception as error:  # noqa: BLE001  # raised again in whoever waits; this thread has others to serve
            job.future.set_exception(error)
    worker.kill()


def _judge(worker: WorkerProcess, gold: str, answer: str) -> TimedReason:
    start = time.perf_counter()
    reason = _ask(worker, gold, answer)
    # Is it the answer's fault, which is wrong then, or the gold's, which nobody could meet? Never a number's.
    if reason in UNFINISHED and parse_number(gold) is None:
        probe = _ask(worker, gold, PROBE)
        if probe == "starved":  # so it is not known
            reason = "starved"
        elif probe == "unjudgeable" or probe in UNFINISHED:
            reason = "unjudgeable"
    if reason == "starved":
        logger.warning(
            "An answer was not judged: the machine is too busy to give the verifier's worker %g s of CPU time within "
            "%g s, twice. Run less beside it, or lower num_workers.",
            worker.timeout,
            PATIENCE * worker.timeout,
        )
    return reason, 1000 * (time.perf_counter() - start)


def _ask(worker: WorkerProcess, gold: str, answer: str) -> Reason:
    """The reason for one pair, asked for again where the first failure may not be the answer's fault.

    One that got no CPU time says that the machine is busy; a dead worker may have been killed from outside.
    """
    task = {"gold": gold, "answer": answer}
    reply = worker.ask(task)
    if reply in ("starved", "dead"):
        reply = worker.ask(task)
    if isinstance(reply, str):
        return FAILURES[reply]
    if "error" in reply:
        report_fault(reply["error"], gold, answer)
    return reply["reason"]


def _shut_down(workers: list[WorkerProcess], jobs: "queue.SimpleQueue[Job | None]", closed: threading.Event) -> None:
    closed.set()
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            break
        if job is not None:
            job.future.cancel()
    for worker in workers:
        jobs.put(None)
        worker.interrupt()
