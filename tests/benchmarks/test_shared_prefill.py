"""The benchmark of generation compares the same work, and finds the same tokens."""

from importlib import import_module
from pathlib import Path

import pytest
import torch


@pytest.fixture
def shared_prefill(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return import_module("shared_prefill")


def test_each_prompt_is_there_once_for_each_answer_and_padded_on_the_left(shared_prefill):
    rows = shared_prefill.make_rows(40, vocabulary=300, device="cpu")
    ids, mask = rows["input_ids"], rows["attention_mask"]
    assert ids.shape == mask.shape == (shared_prefill.PROMPTS * shared_prefill.GROUP, 40)
    assert len(set(map(tuple, ids.tolist()))) == shared_prefill.PROMPTS
    assert torch.equal(ids[0], ids[shared_prefill.GROUP - 1])
    assert mask.sum(1).tolist() == sorted(mask.sum(1).tolist(), reverse=True)
    assert (mask.diff() >= 0).all()
    assert (ids[mask == 0] == 0).all()
    assert set(mask.sum(1).tolist()) == {37, 38, 39, 40}


@pytest.mark.parametrize("answer", [3, 7])
def test_both_ways_give_answers_of_the_length_that_is_asked_for(shared_prefill, policy, answer):
    found = shared_prefill.measure(policy, prompt=20, answer=answer, repeats=2)
    assert found["equal_tokens"] == 1.0
    median, least, most = found["times"]
    assert 0 < least <= median <= most
    rows = shared_prefill.make_rows(20, policy.config.vocab_size, "cpu")
    _, tokens = shared_prefill.timed(policy, rows, answer, shared_prefill.prompts_prefilled_once)
    assert tokens.shape == (64, answer)
