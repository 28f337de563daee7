"""Every command runs as a user starts it."""

import pytest


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    for name in ("TRL_HYBRID_TRACEBACK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
