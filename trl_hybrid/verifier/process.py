"""One worker process as its parent sees it: started, asked with a deadline, killed and started anew."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from typing import Any, Literal


START_TIMEOUT = 15.0  # CPU seconds; a start takes about 0.6
KILL_TIMEOUT = 5.0
PATIENCE = 20.0  # seconds on the clock for each of CPU time: a worker may get so small a share of a core
BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from trl_hybrid.verifier.worker import run; "

Failure = Literal["late", "starved", "dead"]
"""The CPU time is used up; the clock ran out before that, since the machine had none to give; the process ended."""

Reply = dict[str, Any] | Failure
"""What came of one task: the worker's JSON object, or how the worker failed."""


class WorkerProcess:
    """A process that judges one pair at a time. Used by one thread; only `interrupt` and `pid` are for others.

    Args:
        timeout: CPU seconds that a task may take; starting the process does not count. So that how busy the machine
            is decides nothing, the clock counts only beyond `PATIENCE` times as many seconds.
        memory_limit_mb: Cap of the process's address space, in MB.
    """

    def __init__(self, timeout: float, memory_limit_mb: int) -> None:
        self.timeout = timeout
        self.memory_limit_mb = memory_limit_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._interrupted = False

    @property
    def pid(self) -> int | None:
        """Process id of the running worker, `None` when there is none."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> subprocess.Popen[bytes]:
        """Launch the process without waiting until it is ready."""
        call = f"run({self.memory_limit_mb}, {os.getpid()})"
        self._ready = False
        # Neither a fork, of a process with threads and CUDA in it, nor multiprocessing's spawn, which imports the main
        # script and with it torch and trl: seconds and hundreds of MB for each worker and each replacement.
        self._process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP + call, json.dumps([os.fspath(entry) for entry in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # `select` does not see what lies in a buffer of ours
            start_new_session=True,  # the terminal's Ctrl-C does not reach it, not even while it starts
        )
        # A worker that does not read lets a long line stand in the pipe: the deadline must count there too.
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        return self._process

    def kill(self) -> None:
        """End the process at once and reap it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a kernel that is slow to end it must not hold us up
            process.wait(KILL_TIMEOUT)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def interrupt(self) -> None:
        """End the process from another thread, for good."""
        self._interrupted = True
        if (process := self._process) is not None:
            process.kill()

    def ask(self, task: dict[str, Any]) -> Reply:
        """Hand over one task and wait for its record, up to the deadline. A process that fails is replaced.

        Raises:
            RuntimeError: The process cannot start in this environment.
        """
        process = self._ready_process()
        reply = self._exchange(process, task)
        if isinstance(reply, dict):
            return reply
        self.kill()
        if not self._interrupted:
            self.start()  # without waiting: it gets ready while the caller deals with the failure
        return reply

    def _exchange(self, process: subprocess.Popen[bytes], task: dict[str, Any]) -> Reply:
        deadline = Deadline(process.pid, self.timeout)
        try:
            failure = _write(process, json.dumps(task).encode() + b"\n", deadline)
        except BrokenPipeError:
            return "dead"
        return failure or _read(process, deadline)

    def _ready_process(self) -> subprocess.Popen[bytes]:
        """The running process, started anew when it has ended in the meantime."""
        if self._interrupted:
            raise RuntimeError("the verifier was closed")
        process = self._process or self.start()
        if self._ready and process.poll() is None:
            return process
        if self._ready or process.poll() is not None:
            self.kill()
            process = self.start()
        reply = _read(process, Deadline(process.pid, START_TIMEOUT))
        if reply == "dead":  # once more: somebody may have killed it
            self.kill()
            process = self.start()
            reply = _read(process, Deadline(process.pid, START_TIMEOUT))
        if isinstance(reply, dict) and "error" not in reply:
            self._ready = True
            return process
        self.kill()
        raise RuntimeError(f"A worker of the verifier cannot start with {sys.executable}: {self._why(reply)}")

    def _why(self, reply: Reply) -> str:
        """Why a start failed, and the fix."""
        if reply in ("late", "starved"):
            return (
                f"it was not ready after {START_TIMEOUT:g} s of CPU time or {PATIENCE * START_TIMEOUT:g} s on the "
                "clock. The machine is too busy, or reads its files too slowly. Fix: run less beside it, or lower "
                "num_workers."
            )
        why = reply["error"] if isinstance(reply, dict) else "the process ended before it was ready"
        return (
            f"{why}. Fix: pip install 'math-verify>=0.9', and memory_limit_mb of at least 256 (it is "
            f"{self.memory_limit_mb})."
        )


class Deadline:
    """When a process must have answered: by its own CPU time, and far later by the clock, if it gets no CPU time.

    Args:
        pid: The process.
        seconds: CPU seconds from now on; the clock ends it after `PATIENCE` times as many.
    """

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid = pid
        self._left = seconds
        self._cpu = _cpu_seconds(pid) + seconds
        self._clock = time.monotonic() + PATIENCE * seconds

    def wait(self, descriptor: int, event: int) -> Failure | None:
        """Wait until a pipe can be written to, or read from; say what failed if that takes too long."""
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            # One thread's CPU time never passes faster than the clock: no need to look before that much is over.
            while not selector.select(max(0.0, min(self._left, self._clock - time.monotonic()))):
                self._left = self._cpu - _cpu_seconds(self._pid)
                if self._left <= 0:
                    return "late"
                if time.monotonic() >= self._clock:
                    return "starved"
        return None


def _write(process: subprocess.Popen[bytes], line: bytes, deadline: Deadline) -> Failure | None:
    """Hand a process a line, and say what failed if it does not take it; a pipe holds 64 KB, more has to be read."""
    assert process.stdin is not None
    descriptor = process.stdin.fileno()
    while line:
        if failure := deadline.wait(descriptor, selectors.EVENT_WRITE):
            return failure
        line = line[os.write(descriptor, line) :]
    return None


def _read(process: subprocess.Popen[bytes], deadline: Deadline) -> Reply:
    """The next JSON line of a process."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    line = b""
    while not line.endswith(b"\n"):
        if failure := deadline.wait(descriptor, selectors.EVENT_READ):
            return failure
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return "dead"
        line += chunk
    return json.loads(line)


def _cpu_seconds(pid: int) -> float:
    """CPU time that a process has used; 0 of one that is gone, which its pipe tells."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
