import os
from contextlib import suppress

import pytest
import torch

from trl_hybrid.reward_model import RewardModel, streamed
from trl_hybrid.reward_model.torch_settings import own_share_of_cores


@pytest.fixture
def one_thread(monkeypatch):
    """As under `accelerate launch`, on a machine of eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("processes", "share"), [(None, 8), ("2", 4), ("16", 1)])
@pytest.mark.usefixtures("one_thread")
def test_processes_share_the_cores(monkeypatch, processes, share):
    if processes is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    with suppress(KeyboardInterrupt), own_share_of_cores():
        assert torch.get_num_threads() == share
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("one_thread")
def test_a_streamed_model_is_moved_and_checked_by_all_cores(qwen2, monkeypatch):
    threads = []

    def counted(work):
        return lambda *given: threads.append(torch.get_num_threads()) or work(*given)

    for name in ("load_model", "plain_scores", "StreamedModel"):
        monkeypatch.setattr(streamed, name, counted(getattr(streamed, name)))
    RewardModel(qwen2.path, placement="streamed", device="cpu")
    assert threads == [8, 8, 8]
    assert torch.get_num_threads() == 1
