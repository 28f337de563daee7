"""Memory of the machine itself: how much of it a process may still take, and what forwards on a CPU leave to the next.

A container's limit counts as much as the machine's memory: who goes beyond it is ended without a word.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch


LEARNED_BYTES = 31 << 20

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers in malloc.h."""

SET_BY_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

PROCESS_GROUPS = Path("/proc/self/cgroup")

GROUPS = Path("/sys/fs/cgroup")

FIRST_VERSION = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")
"""Control groups, version 1: the files of limit and use, and what of that use is cached files, in `memory.stat`."""

SECOND_VERSION = ("memory.max", "memory.current", "inactive_file", "active_file")
"""The same in version 2."""


def free_host_bytes(process_groups: Path = PROCESS_GROUPS, groups: Path = GROUPS) -> int:
    """Return what this process may still take of the machine's memory.

    Returns:
        Bytes: what the machine has to spare, or the room left by the tightest limit of the process's control groups
        where that is less. Cached files count as free in both.
    """
    return max(0, min([psutil.virtual_memory().available, *_rooms(process_groups, groups)]))


def _rooms(process_groups: Path, groups: Path) -> Iterator[int]:
    """Yield the room in each control group with a limit, from the process's own up to the outermost.

    A line of `process_groups` is such as `0::/user.slice/run.scope` or, in version 1, `4:memory:/docker/1f3a`. Inside
    a container the path may be the machine's and not to be seen; then its outermost group is the container's.
    """
    if not process_groups.is_file():  # not Linux
        return
    for line in process_groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = groups, SECOND_VERSION
        elif "memory" in controllers.split(","):
            top, names = groups / "memory", FIRST_VERSION
        else:
            continue
        own = top / path.lstrip("/")
        for group in (own, *own.parents):
            yield from _room(group, *names)
            if group == top:
                break


def _room(group: Path, limit: str, used: str, *cached: str) -> Iterator[int]:
    """Yield a group's limit less what it uses, or nothing where there is no such group or limit."""
    if not (group / limit).is_file() or (most := (group / limit).read_text().strip()) == "max":
        return
    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    reclaimable = sum(int(statistics.get(name, 0)) for name in cached)
    yield int(most) - int((group / used).read_text()) + reclaimable


def keep_freed_memory() -> None:
    """Let the C library keep what a forward on the CPU frees, for the next one to use.

    glibc hands freed blocks back to the system, which then fetches and clears every page of the next forward anew: a
    tenth of a small model's time. It learns otherwise from large blocks that come and go, and only from them: up to
    32 MiB, a freed block's size becomes the one from which blocks are handed back (mallopt(3), M_MMAP_THRESHOLD), and
    twice that is kept. So one such block does, and costs nothing. Larger blocks, as a 7B model's layers make, are
    still handed back; next to their computation that is little. Other C libraries do not mind.
    """
    torch.empty(LEARNED_BYTES, dtype=torch.uint8, device="cpu")


def keep_all_freed_memory() -> None:
    """Let the C library keep whatever this process frees: for one that trains on the CPU, and has the machine for it.

    A training step's blocks are larger than `keep_freed_memory` can have it learn: the logits of 32 answers of 24
    tokens from 49,000 words take 151 MB. Fetching and clearing their pages anew was a tenth of SmolLM2-135M's step.
    The process stays as large as it was at its peak, and then some. Nothing is done where the environment says how
    glibc's malloc is to behave, and by other C libraries.
    """
    if sys.platform != "linux" or any(name in os.environ for name in SET_BY_USERS):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        most = 2**31 - 1  # it takes a C int; blocks beyond 2 GB come and go
        mallopt(M_MMAP_THRESHOLD, most)
        mallopt(M_TRIM_THRESHOLD, most)
