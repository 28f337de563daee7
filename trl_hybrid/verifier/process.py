"""One worker process as its parent sees it: started, asked with a deadline, killed and started anew."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from typing import Any, Literal


START_TIMEOUT = 30.0  # seconds, twice; a start takes about 0.6 s on a quiet machine
KILL_TIMEOUT = 5.0
STARVED = 0.2  # share of the deadline in CPU time below which the machine, not the task, is to blame
BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from trl_hybrid.verifier.worker import run; "

Failure = Literal["late", "starved", "dead"]
"""The deadline passed; it passed, but the task hardly got any CPU time; the process ended."""

Reply = dict[str, Any] | Failure
"""What came of one task: the worker's JSON object, or how the worker failed."""


class WorkerProcess:
    """A process that judges one pair at a time. Used by one thread; only `interrupt` and `pid` are for others.

    Args:
        timeout: Seconds that a task may take, from the moment it is handed over; starting the process does not count.
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
        """Hand over one task and wait for its record, at most `timeout` seconds. A process that fails is replaced.

        Raises:
            RuntimeError: The process cannot start in this environment.
        """
        process = self._ready_process()
        cpu_before = _cpu_seconds(process.pid)
        reply = self._exchange(process, task)
        if isinstance(reply, dict):
            return reply
        if reply == "late" and _cpu_seconds(process.pid) - cpu_before < STARVED * self.timeout:
            reply = "starved"
        self.kill()
        if not self._interrupted:
            self.start()  # without waiting: it gets ready while the caller deals with the failure
        return reply

    def _exchange(self, process: subprocess.Popen[bytes], task: dict[str, Any]) -> Reply:
        deadline = time.monotonic() + self.timeout
        try:
            if not _write(process, json.dumps(task).encode() + b"\n", deadline):
                return "late"
        except BrokenPipeError:
            return "dead"
        return _read(process, deadline)

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
        reply = _read(process, time.monotonic() + START_TIMEOUT)
        if isinstance(reply, str):  # once more: a busy machine, or somebody killed it
            self.kill()
            process = self.start()
            reply = _read(process, time.monotonic() + START_TIMEOUT)
        if isinstance(reply, dict) and "error" not in reply:
            self._ready = True
            return process
        self.kill()
        why = f"the process was {reply} before it was ready" if isinstance(reply, str) else reply["error"]
        raise RuntimeError(
            f"A worker of the verifier cannot start with {sys.executable}: {why}. Fix: pip install "
            f"'math-verify>=0.9', and memory_limit_mb of at least 256 (it is {self.memory_limit_mb})."
        )


def _write(process: subprocess.Popen[bytes], line: bytes, deadline: float) -> bool:
    """Whether a process took a line before the deadline; a pipe holds 64 KB, more has to be read."""
    assert process.stdin is not None
    descriptor = process.stdin.fileno()
    while line:
        if not _is_ready(descriptor, selectors.EVENT_WRITE, deadline):
            return False
        line = line[os.write(descriptor, line) :]
    return True


def _is_ready(descriptor: int, event: int, deadline: float) -> bool:
    """Whether a pipe can be written to, or read from, before the deadline."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, event)
        return bool(selector.select(max(0.0, deadline - time.monotonic())))


def _read(process: subprocess.Popen[bytes], deadline: float) -> Reply:
    """The next JSON line of a process."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    line = b""
    while not line.endswith(b"\n"):
        if not _is_ready(descriptor, selectors.EVENT_READ, deadline):
            return "late"
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return "dead"
        line += chunk
    return json.loads(line)


def _cpu_seconds(pid: int) -> float:
    """CPU time that a process has used; infinite where /proc does not tell, and then no task counts as starved."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
