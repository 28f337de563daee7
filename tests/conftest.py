"""Settings shared by all tests: offline, one thread a process, reproducible property tests."""

import os


# Before anything imports huggingface_hub: a test that reaches for the network fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Two threads a process on two busy cores spend their time waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings


# Scripts for processes that tests launch; they import each other from their own folder.
collect_ignore = ["launch"]

settings.register_profile("offline", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("offline")
