"""How much of the machine's memory a process may take, and that what is freed between forwards is used again."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from trl_hybrid.reward_model.host_memory import free_host_bytes


PAGES_FETCHED = """
import resource
import torch
from trl_hybrid import RewardModel

torch.set_num_threads(1)
RewardModel("data/embedded_reward_model", device="cpu")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for mebibytes in range(16, 29):  # each larger than what glibc has seen freed
    torch.zeros(mebibytes << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have rules of their own")
def test_freed_memory_is_used_again() -> None:
    run = subprocess.run([sys.executable, "-c", PAGES_FETCHED], capture_output=True, text=True, check=True)

    # The largest block has 7,168 pages of 4 KiB, all together 73,216.
    assert int(run.stdout) < 20_000


PAGES_OF_A_STEP = """
import resource
import torch
from trl_hybrid.reward_model.host_memory import keep_all_freed_memory

keep_all_freed_memory()
for step in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(100 << 20, dtype=torch.uint8) for _ in range(3)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have rules of their own")
@pytest.mark.parametrize(
    ("users", "least", "most"), [({}, 0, 1000), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, 76_800, 1e6)]
)
def test_a_training_steps_memory_is_used_again_unless_the_user_has_said_otherwise(users, least, most) -> None:
    # Huge pages, where the system gives them, would hide how much is fetched.
    environment = {**os.environ, **users}
    script = f"import ctypes; ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)\n{PAGES_OF_A_STEP}"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    # Three blocks of 100 MiB have 76,800 pages of 4 KiB.
    assert least <= int(run.stdout) <= most


GB = 10**9


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """A machine with 100 GB to spare, and control groups of the given limits; returns what is free in them."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 * GB))

    def free(lines, **files):
        (tmp_path / "own").write_text("\n".join(lines) + "\n")
        for path, values in files.items():
            folder = tmp_path / "groups" / path.replace("__", "/")
            folder.mkdir(parents=True, exist_ok=True)
            for name, value in values.items():
                (folder / name.replace("__", ".")).write_text(f"{value}\n")
        return free_host_bytes(tmp_path / "own", tmp_path / "groups")

    return free


def second(limit, current, stat="anon 0"):
    return {"memory__max": limit, "memory__current": current, "memory__stat": stat}


def first(limit, usage, stat="rss 0"):
    return {"memory__limit_in_bytes": limit, "memory__usage_in_bytes": usage, "memory__stat": stat}


def test_the_tightest_of_nested_limits_counts(control_groups):
    # 40 - 10 = 30 GB of room inside, 50 - 32 = 18 GB in the group around it.
    found = control_groups(
        ["0::/pod/container"], pod=second(50 * GB, 32 * GB), pod__container=second(40 * GB, 10 * GB)
    )
    assert found == 18 * GB


def test_no_limit_leaves_the_machine_s_memory(control_groups):
    assert control_groups(["0::/run.scope"], **{"run.scope": second("max", 10 * GB)}) == 100 * GB
    # Version 1 has no word for it, but a number that no machine reaches.
    assert control_groups(["4:memory:/"], memory=first(9223372036854771712, 10 * GB)) == 100 * GB


def test_cached_files_are_room(control_groups):
    """Reading 14 GB of weights fills a container with pages that are given up when somebody needs them."""
    pages = f"anon {2 * GB}\nactive_file {3 * GB}\ninactive_file {14 * GB}"
    assert control_groups(["0::/c"], c=second(20 * GB, 19 * GB, pages)) == (20 - 19 + 3 + 14) * GB
    pages = f"inactive_file 1\ntotal_active_file 0\ntotal_inactive_file {4 * GB}"
    assert control_groups(["7:cpu:/x", "4:hugetlb,memory:/x"], memory__x=first(8 * GB, 6 * GB, pages)) == 6 * GB


def test_a_container_that_is_named_from_outside_is_the_outermost_group(control_groups):
    assert control_groups(["4:memory:/docker/1f3a"], memory=first(16 * GB, 4 * GB)) == 12 * GB
    assert control_groups(["0::/../other"], **{"": second(16 * GB, 20 * GB)}) == 0  # over its limit already


def test_elsewhere_than_on_linux_the_machine_s_memory_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=7 * GB))
    assert free_host_bytes(tmp_path / "none", tmp_path) == 7 * GB
