"""The worker process: reads one JSON line per task from standard input, answers with one JSON line.

Started by `process.py` as `python -c ...` with the parent's `sys.path`, never by `multiprocessing`: spawn and
forkserver re-import the user's main script, and with it torch. A worker is about 60 MB and starts in about 0.6 s.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from typing import TextIO


PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run(memory_limit_mb: int, parent_pid: int) -> None:
    """Serve tasks until standard input ends, memory has grown, or the parent is gone.

    Args:
        memory_limit_mb: Hard cap of this process's address space, in MB.
        parent_pid: The process that must be alive for this one to live.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints must not break the protocol
    _live_and_die_with(parent_pid)
    _cap_memory(memory_limit_mb)
    try:
        from trl_hybrid.verifier.symbolic import judge, parse
    except ImportError as error:
        _reply(replies, {"error": f"the verifier's worker cannot import math-verify: {error}"})
        return
    parse("x+1")  # the parser's tables cost 0.2 s, which the first task's deadline should not pay
    _reply(replies, {"ready": os.getpid()})
    for line in sys.stdin:
        _reply(replies, judge(**json.loads(line)))
        if _resident_mb() > memory_limit_mb / 2:
            return  # the parent starts a fresh process: memory stays flat over a long run


def _live_and_die_with(parent_pid: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    if hasattr(libc := ctypes.CDLL(None), "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # the parent died before the line above
        sys.exit(1)


def _cap_memory(memory_limit_mb: int) -> None:
    cap = memory_limit_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _resident_mb() -> float:
    """Memory in use now; not the peak of `getrusage`, which Linux starts at the parent's, torch and all."""
    with open("/proc/self/statm", encoding="ascii") as pages:
        return int(pages.read().split()[1]) * resource.getpagesize() / 2**20


def _reply(replies: TextIO, record: dict) -> None:
    replies.write(json.dumps(record) + "\n")
    replies.flush()
