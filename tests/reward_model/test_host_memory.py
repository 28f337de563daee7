"""Memory that is freed between forwards is used again."""

import platform
import subprocess
import sys

import pytest


PAGES_FETCHED = """
import resource
import torch
from trl_hybrid.reward_model.host_memory import keep_freed_memory

def forwards():
    for _ in range(20):
        [torch.zeros(2 << 20) for _ in range(6)]  # 8 MiB each, as a small model's layer makes

torch.set_num_threads(1)
keep_freed_memory()
forwards()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
forwards()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have rules of their own")
def test_freed_memory_is_used_again() -> None:
    run = subprocess.run([sys.executable, "-c", PAGES_FETCHED], capture_output=True, text=True, check=True)

    # 960 MiB in all: 245,760 pages of 4 KiB. As glibc begins it fetches most of them anew in most processes.
    assert int(run.stdout) < 1000
