"""Measuring: ways in processes of their own, taking turns."""

import ctypes
import gc
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from updates.cases import Case
from updates.ways import TRL, Setting, Worker

from trl_hybrid.training.attention import turn_off_cudnn_attention


Result = dict[str, Any]


def memory(name: str) -> int:
    """Read this process's resident set (`VmRSS`) or its peak (`VmHWM`), in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def release_memory(device: str) -> None:
    """Hand back what earlier work left in allocators, and let the peak begin anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def observe(worker: Worker, case: Case, file: Path, reference: bool) -> Result:
    """Update once; return tokens, memory in bytes, and how far the gradient is from the reference's.

    Args:
        worker: The way's.
        case: The rows.
        file: Holds the reference's gradient.
        reference: Whether this is the reference, and writes it.
    """
    rows = worker.rows(case)
    if reference:
        file.unlink(missing_ok=True)  # of the case before
    worker.trainer.model.zero_grad()
    release_memory(worker.device)
    held = torch.cuda.memory_allocated() if worker.device == "cuda" else memory("VmRSS")
    tokens = worker.update(case, rows)
    peak = torch.cuda.max_memory_allocated() if worker.device == "cuda" else memory("VmHWM")
    found: Result = {"tokens": tokens, "peak_bytes": peak, "extra_bytes": peak - held}
    if reference:
        torch.save(dict(worker.gradients()), file)
    elif file.exists():  # the reference had the memory for it
        expected = torch.load(file, map_location="cpu", mmap=True)
        found["gradient_difference"] = difference(worker.gradients(), expected)
    return found


def difference(found: Iterable[tuple[str, torch.Tensor]], expected: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference of two gradients by the expected one's, in sums of float64.

    Raises:
        ArithmeticError: One has parameters that the other has not.
    """
    mine, squares, norm = dict(found), 0.0, 0.0
    if mine.keys() != expected.keys():
        raise ArithmeticError(f"Only one has a gradient of {sorted(mine.keys() ^ expected.keys())[:3]}.")
    for name, gradient in mine.items():
        theirs = expected[name].to(gradient.device).double()
        squares += (gradient.double() - theirs).square().sum().item()
        norm += theirs.square().sum().item()
    return (squares / norm) ** 0.5


def timed(worker: Worker, case: Case) -> Result:
    """Update once, as when it is not the first time; return the seconds."""
    rows = worker.rows(case)
    if worker.device == "cuda":  # after another way's turn memory is to be asked for again
        worker.update(case, rows)
    start = time.perf_counter()
    worker.update(case, rows)
    return {"seconds": time.perf_counter() - start}


def serve(pipe: Connection, way: str, setting: Setting, file: Path) -> None:
    """Load in this process, then do what comes through the pipe: "observe" or "time", and a case."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(setting.threads)
    turn_off_cudnn_attention()
    worker = Worker(way, setting, file.parent)
    pipe.send({})
    while True:
        task, case = pipe.recv()
        try:
            answer = timed(worker, case) if task == "time" else observe(worker, case, file, way == TRL)
        except torch.OutOfMemoryError as error:
            answer = {"not_run": str(error).partition("\n")[0][:200]}
        worker.trainer.model.zero_grad()
        release_memory(setting.device)  # which the ways share
        pipe.send(answer)


class Crew:
    """One process for each way, all with the same policy.

    Args:
        ways: Their names; TRL's, the first, is what the others' gradients are held against.
        setting: What is trained.
        folder: For the gradient in between.
    """

    def __init__(self, ways: Sequence[str], setting: Setting, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: dict[str, Connection] = {}
        self._processes = {}
        for way in ways:
            self._pipes[way], theirs = context.Pipe()
            arguments = (theirs, way, setting, folder / "gradient.pt")
            self._processes[way] = context.Process(target=serve, args=arguments, daemon=True)
            self._processes[way].start()
            theirs.close()  # the worker's end is now its own: it closes when the worker dies

    def ready(self) -> None:
        """Wait until all have loaded."""
        for way in self._pipes:
            self._answer(way)

    def ask(self, way: str, task: str, case: Case) -> Result:
        """Let a way "observe" or "time" a case."""
        self._pipes[way].send((task, case))
        return self._answer(way)

    def _answer(self, way: str) -> Result:
        try:
            return self._pipes[way].recv()
        except EOFError:
            self._processes[way].join()
            code = self._processes[way].exitcode
            raise RuntimeError(f"{way}: its process died (exit code {code}); see what it wrote above.") from None

    def stop(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            process.kill()
            process.join()


def measure(
    crew: Crew, ways: Sequence[str], case: Case, repeats: int, tick: Callable[[], object]
) -> dict[str, Result]:
    """Let every way update once for memory and gradients, then `repeats` times in turn for the time."""
    found: dict[str, Result] = {}
    for way in ways:
        found[way] = crew.ask(way, "observe", case)
        tick()
    for _ in range(repeats):
        for way in ways:
            answer = {} if "not_run" in found[way] else crew.ask(way, "time", case)
            if "seconds" in answer:
                found[way].setdefault("seconds", []).append(answer["seconds"])
            elif answer:
                found[way] = answer
            tick()
    return found
