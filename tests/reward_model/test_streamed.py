"""Weights that pass through the device a layer at a time; here the device is the CPU."""

import logging

import pytest
import torch
from transformers import AutoModelForSequenceClassification, MistralConfig

from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.streamed import LayerStream


COMPLETIONS = ["x" * length for length in (0, 3, 40, 41, 42, 90, 91, 200)]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("token_budget", [None, 60])
def test_streamed_scores_equal_plain_transformers_row_by_row(save_model, family, token_budget):
    saved = save_model(family)
    scorer = RewardModel(saved.path, placement="streamed", device="cpu", token_budget=token_budget, cache_size=0)
    expected = [saved.score("Q", completion) for completion in COMPLETIONS]
    for _ in range(2):  # the second call begins with layers fetched at the end of the first
        assert scorer.compute_batch_reward("Q", COMPLETIONS) == pytest.approx(expected, abs=1e-5)


def test_every_layer_is_copied_once_a_pass_however_many_batches_there_are(qwen2, monkeypatch):
    scorer = RewardModel(qwen2.path, placement="streamed", device="cpu", token_budget=100, cache_size=0)
    fetched = []
    fetch = LayerStream._fetch
    monkeypatch.setattr(LayerStream, "_fetch", lambda stream, use: fetched.append(use) or fetch(stream, use))
    scorer.compute_batch_reward("Q", COMPLETIONS)
    batches = len(
        scorer.backend.forward.plan([scorer.renderer.render(["Q"], [c], [False])[0].ids for c in COMPLETIONS], 100)
    )
    assert 1 < batches <= 8
    assert len(fetched) == len(scorer.backend.layers) == 2


class Recorded(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3, 5), float(value)))
        self.bias = torch.nn.Parameter(torch.full((7,), float(-value)))


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 9])
def test_layers_come_round_in_order_whatever_the_number_of_slots(slots):
    layers = [Recorded(value) for value in range(5)]
    stream = LayerStream(layers, torch.device("cpu"), slots)
    for _ in range(3):
        for value in range(5):
            with stream.next_layer() as weights:
                assert weights["weight"].shape == (3, 5)
                assert weights["weight"].eq(value).all()
                assert weights["bias"].eq(-value).all()
    assert [layer.weight[0, 0].item() for layer in layers] == list(range(5))  # in their slabs, unchanged


def test_a_pass_that_was_broken_off_leaves_the_next_one_right(qwen2, monkeypatch):
    scorer = RewardModel(qwen2.path, placement="streamed", device="cpu", cache_size=0)
    expected = [qwen2.score("Q", completion) for completion in COMPLETIONS]
    through = type(scorer.backend)._through
    calls = []

    def interrupted(layer, weights, passenger):
        calls.append(layer)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return through(layer, weights, passenger)

    monkeypatch.setattr(type(scorer.backend), "_through", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        scorer.compute_batch_reward("Q", COMPLETIONS)
    assert scorer.compute_batch_reward("Q", COMPLETIONS) == pytest.approx(expected, abs=1e-5)


def test_running_out_of_memory_halves_the_budget_and_begins_again(qwen2, monkeypatch, caplog):
    scorer = RewardModel(qwen2.path, placement="streamed", device="cpu", cache_size=0)
    expected = [qwen2.score("Q", completion) for completion in COMPLETIONS]
    through = type(scorer.backend)._through

    def cramped(layer, weights, passenger):
        if passenger.hidden.shape[1] > 300:
            raise torch.OutOfMemoryError("no room")
        return through(layer, weights, passenger)

    monkeypatch.setattr(type(scorer.backend), "_through", staticmethod(cramped))
    with caplog.at_level(logging.WARNING):
        assert scorer.compute_batch_reward("Q", COMPLETIONS) == pytest.approx(expected, abs=1e-5)
    assert scorer.backend.token_budget <= 300
    assert "the token budget is" in caplog.text


def test_an_architecture_that_cannot_be_streamed_is_refused_with_what_can_be_done(qwen2, tmp_path):
    qwen2.tokenizer.save_pretrained(tmp_path)
    config = MistralConfig(
        vocab_size=200, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_labels=1,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type 'mistral'\\. Place it `resident`, `zero3` or `cpu`"):
        RewardModel(str(tmp_path), placement="streamed", device="cpu")
