"""Measuring: ways in processes of their own, taking turns."""

import ctypes
import gc
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from scoring.kernels import profiled
from scoring.ways import WAYS, Score, Setting, join_group, obstacle
from scoring.workload import FIRST_ROW_ID, Row


Result = dict[str, Any]
MakeRows = Callable[[int], Sequence[Row]]
"""Makes the rows of a pass, of which the first is 0."""

SLOW_SECONDS = 120
SAMPLING_SECONDS = 0.005
PATIENCE_SECONDS = 1800


def resident_set() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def release_memory() -> None:
    """Hand back what earlier work left in allocators."""
    gc.collect()
    torch.cuda.empty_cache()
    ctypes.CDLL(None).malloc_trim(0)


def observe(score: Score, rows: Sequence[Row], device: str) -> Result:
    """Score once; return scores, seconds, and the peak of memory and what was held before, in bytes."""
    release_memory()
    done, samples = threading.Event(), [resident_set()]

    def sample() -> None:
        while not done.wait(SAMPLING_SECONDS):
            samples.append(resident_set())

    sampler = threading.Thread(target=sample, daemon=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        samples = [torch.cuda.memory_allocated()]
    else:
        sampler.start()
    start = time.perf_counter()
    scores = score(rows)  # numbers on the CPU: the device has nothing left to do
    seconds = time.perf_counter() - start
    done.set()
    if device == "cuda":
        samples.append(torch.cuda.max_memory_allocated())
    return {"scores": scores, "seconds": seconds, "held": samples[0], "peak": max(samples)}


def serve(pipe: Connection, name: str, setting: Setting) -> None:
    """Load in this process, then do what comes through the pipe: "observe" or "profile", and rows.

    The first failure is the last answer.
    """
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(setting.threads)
    try:
        if setting.device == "cuda":
            torch.cuda.set_device(setting.rank)
        if setting.processes > 1:
            join_group(setting)
        score = WAYS[name].start(setting)
        # Reads every weight once, and brings in what libraries load late.
        score([tuple(range(FIRST_ROW_ID, FIRST_ROW_ID + length)) for length in (8, 9)])
        pipe.send({})
        while True:
            task, rows = pipe.recv()
            if task == "profile":
                pipe.send(profiled(partial(score, rows), setting.device))
            else:
                pipe.send(observe(score, rows, setting.device))
    except Exception as error:  # noqa: BLE001, whatever a rival raises is a line of the table
        traceback.print_exc()
        pipe.send({"not_run": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"})


class Crew:
    """The processes that score together in one way, each with its part of the rows.

    Args:
        name: The way's.
        setting: Where; its threads are shared out.
        processes: How many.
    """

    def __init__(self, name: str, setting: Setting, processes: int = 1) -> None:
        self.name = name
        self.label = name if processes == 1 else f"{name} x{processes}"
        self.failure = obstacle(WAYS[name], setting.device, processes)
        threads = max(1, setting.threads // processes)
        meeting = f"file://{tempfile.mkdtemp(dir=setting.folder)}/store"
        self._settings = [
            replace(setting, threads=threads, rank=rank, processes=processes, meeting=meeting)
            for rank in range(processes)
        ]
        self._workers: dict[Any, Any] = {}

    def start(self) -> None:
        """Start the processes, which load side by side; their first answer says that they have."""
        context = multiprocessing.get_context("spawn")
        for setting in [] if self.failure else self._settings:
            pipe, theirs = context.Pipe()
            worker = context.Process(target=serve, args=(theirs, self.name, setting), daemon=True)
            worker.start()
            theirs.close()  # the worker's end is now its own: it closes when the worker dies
            self._workers[pipe] = worker

    def answers(self) -> list[Result]:
        """Wait for every process, by rank. The first failure ends the crew, since the others may wait for it."""
        answers: dict[Any, Result] = {}
        while waiting := [pipe for pipe in self._workers if pipe not in answers]:
            ready = wait(waiting, PATIENCE_SECONDS)
            answers |= {pipe: self._receive(pipe) for pipe in ready}
            failures = [answer["not_run"] for answer in answers.values() if "not_run" in answer]
            if failures or not ready:
                self.failure = failures[0] if failures else f"no answer in {PATIENCE_SECONDS} s"
                self.stop()
                return []
        return [answers[pipe] for pipe in self._workers]

    def _receive(self, pipe: Any) -> Result:
        try:
            return pipe.recv()
        except EOFError:
            self._workers[pipe].join()
            return {"not_run": f"its process died (exit code {self._workers[pipe].exitcode})"}

    def score(self, rows: Sequence[Row], task: str = "observe") -> list[Result]:
        """Let every process score its part once, and "observe" or "profile" it."""
        processes = len(self._workers)
        for rank, pipe in enumerate(self._workers):
            pipe.send((task, rows[len(rows) * rank // processes : len(rows) * (rank + 1) // processes]))
        return self.answers()

    def stop(self) -> None:
        """End the processes."""
        for worker in self._workers.values():
            worker.kill()
            worker.join()
        self._workers = {}


def measure(crews: Sequence[Crew], workloads: Sequence[MakeRows], repeats: int) -> list[dict[str, Result]]:
    """Measure crews, all loaded at the same time, on workloads; return results by label for each workload."""
    try:
        for crew in crews:
            crew.start()
        for crew in crews:
            crew.answers()
        return [take_turns(crews, make_rows, repeats) for make_rows in workloads]
    finally:
        for crew in crews:
            crew.stop()


def take_turns(crews: Sequence[Crew], make_rows: MakeRows, repeats: int) -> dict[str, Result]:
    """Let every crew score once, then `repeats` times if it is not slow, each turn beginning with another crew.

    Every turn has rows of its own, the same for all crews: a kernel's plans for shapes that it has seen would hide
    what new ones cost, and training has new ones at each step.
    """
    passes: dict[str, list[list[Result]]] = {crew.label: [] for crew in crews}
    for turn in range(repeats + 1):
        first, rows = turn % max(1, len(crews)), make_rows(turn)
        for crew in [*crews[first:], *crews[:first]]:
            before = passes[crew.label]
            if not crew.failure and not is_slow(before):
                before.append(crew.score(rows))
    results = {}
    for crew in crews:
        results[crew.label] = summary(passes[crew.label]) if not crew.failure else {}
        if not crew.failure and not is_slow(passes[crew.label]):
            results[crew.label] |= first_of(crew.score(make_rows(repeats + 1), "profile"))
        if crew.failure:
            results[crew.label] = {"not_run": crew.failure}
    return results


def first_of(answers: Sequence[Result]) -> Result:
    """Return the first process's answer; nothing where the crew failed."""
    return answers[0] if answers else {}


def is_slow(passes: Sequence[Sequence[Result]]) -> bool:
    """Say whether the first pass took so long that it is the only one."""
    return bool(passes) and seconds_of(passes[0]) > SLOW_SECONDS


def seconds_of(answers: Sequence[Result]) -> float:
    """Time of a pass: that of the slowest process."""
    return max(answer["seconds"] for answer in answers)


def summary(passes: Sequence[Sequence[Result]]) -> Result:
    """Sum up the passes of a crew: the first for scores and memory, the others, if there are any, for time."""
    times = [seconds_of(answers) for answers in passes]
    return {
        "seconds": times[1:] or times,
        "median_seconds": statistics.median(times[1:] or times),
        "peak_bytes": sum(answer["peak"] for answer in passes[0]),
        "extra_bytes": sum(answer["peak"] - answer["held"] for answer in passes[0]),
        "scores": [score for answer in passes[0] for score in answer["scores"]],
    }
