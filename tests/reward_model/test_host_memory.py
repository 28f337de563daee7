"""Memory that is freed between forwards is used again."""

import platform
import subprocess
import sys

import pytest


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
