"""Weights that pass through the device a layer at a time; here the device is the CPU."""

import logging

import pytest
import torch
from transformers import AttentionInterface, AutoModelForSequenceClassification, MistralConfig

from trl_hybrid.packing.attention import ATTENTION, packed_attention
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.layer_stream import LayerStream


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


def test_the_head_is_fp32_while_the_body_is_bf16(qwen2):
    backend = RewardModel(qwen2.path, placement="streamed", device="cpu", dtype="bfloat16").backend
    assert backend.head.weight.dtype == torch.float32
    assert {slab.dtype for slab in backend.stream.slabs} == {torch.bfloat16}


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


def crowd(scorer, monkeypatch, fits):
    """Let memory run out in the last layer of passes that do not fit; return the numbers of rows of those that do.

    `fits` is asked with the tokens of the pass and how many passes were begun before.
    """
    backend, begun, passed = scorer.backend, [], []
    whole, through = backend._pass, type(backend)._through

    def watched(batches):
        begun.append(fits(sum(len(packed.ids) for packed in batches), len(begun)))
        scores = whole(batches)
        passed.append(len(scores))
        return scores

    def cramped(layer, weights, passenger):
        if layer is backend.layers[-1] and not begun[-1]:
            raise torch.OutOfMemoryError("no room")
        return through(layer, weights, passenger)

    monkeypatch.setattr(backend, "_pass", watched)
    monkeypatch.setattr(type(backend), "_through", staticmethod(cramped))
    return passed


MIXED = [COMPLETIONS[place] for place in (3, 7, 0, 5, 1, 6, 4, 2)]


def test_where_each_row_goes_alone_fewer_wait_together(qwen2, monkeypatch, caplog):
    expected = RewardModel(qwen2.path, token_budget=1, cache_size=0).compute_batch_reward("Q", MIXED)
    scorer = RewardModel(qwen2.path, placement="streamed", device="cpu", token_budget=1, cache_size=0)
    passed = crowd(
        scorer, monkeypatch, lambda tokens, _: tokens <= 550
    )  # the rows are 222, 113, 112, 64, 63, 62, 25 and 22 tokens
    with caplog.at_level(logging.WARNING):
        assert scorer.compute_batch_reward("Q", MIXED) == pytest.approx(expected, abs=1e-5)
    assert "4 go through the layers together now" in caplog.text
    assert (scorer.backend.batches_per_pass, scorer.backend.token_budget) == (4, 1)
    assert passed == [4, 4]
    caplog.clear()
    assert scorer.compute_batch_reward("Q", MIXED) == pytest.approx(expected, abs=1e-5)
    assert not caplog.records  # it is learned once
    assert passed == [4, 4, 4, 4]


def test_rows_of_passes_that_ended_are_not_scored_again(qwen2, monkeypatch):
    expected = [qwen2.score("Q", completion) for completion in MIXED]
    scorer = RewardModel(qwen2.path, placement="streamed", device="cpu", token_budget=1, cache_size=0)
    scorer.backend.batches_per_pass = 2
    passed = crowd(scorer, monkeypatch, lambda _, begun: begun != 1)
    assert scorer.compute_batch_reward("Q", MIXED) == pytest.approx(expected, abs=1e-5)
    assert passed == [2, 1, 1, 1, 1, 1, 1]


def test_smaller_batches_come_before_more_passes(qwen2, monkeypatch):
    """They need less of what a layer computes with, and the weights cross the bus as often."""
    completions = [letter * 40 for letter in "abcdefgh"]  # 8 rows of 62 tokens, which share their start
    expected = [qwen2.score("Q", completion) for completion in completions]
    scorer = RewardModel(qwen2.path, placement="streamed", device="cpu", token_budget=400, cache_size=0)
    scorer.backend.batches_per_pass = 2
    crowd(scorer, monkeypatch, lambda tokens, _: tokens <= 250)
    assert scorer.compute_batch_reward("Q", completions) == pytest.approx(expected, abs=1e-5)
    assert scorer.backend.batches_per_pass == 2
    assert 62 < scorer.backend.token_budget <= 125


def test_a_row_that_does_not_fit_alone_is_an_error_with_a_fix(qwen2, monkeypatch):
    scorer = RewardModel(qwen2.path, placement="streamed", device="cpu", cache_size=0)
    crowd(scorer, monkeypatch, lambda tokens, _: tokens <= 100)
    with pytest.raises(torch.OutOfMemoryError, match="Lower the reward model's `max_length`"):
        scorer.compute_batch_reward("Q", MIXED)


def test_an_architecture_that_cannot_be_streamed_is_refused_with_what_can_be_done(qwen2, tmp_path):
    qwen2.tokenizer.save_pretrained(tmp_path)
    config = MistralConfig(
        vocab_size=200, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_labels=1,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type 'mistral', is not\\. Place it `resident`, `zero3` or `cpu`"):
        RewardModel(str(tmp_path), placement="streamed", device="cpu")


def test_streamed_rows_whose_scores_are_off_by_less_than_a_hundredth_are_refused(qwen2, monkeypatch):
    def inexact(module, query, key, value, attention_mask, scaling=None, packing=None, **kwargs):
        out, _ = packed_attention(module, query, key, value, attention_mask, scaling=scaling, packing=packing)
        return out * 1.005, None

    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, inexact)
    with pytest.raises(ValueError, match="Streamed rows must score as plain ones do"):
        RewardModel(qwen2.path, placement="streamed", device="cpu")
