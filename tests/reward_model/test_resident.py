import logging
import math

import pytest
import torch

from trl_hybrid.reward_model import RewardModel, forwards


COMPLETIONS = ["x" * length for length in (3, 40, 41, 42, 90, 91, 200)]


@pytest.fixture
def scorer(qwen2):
    return RewardModel(qwen2.path, cache_size=0)


def crowd(scorer, monkeypatch, room):
    """Let the device run out of memory above `room` tokens a forward; return the sizes of the forwards that passed."""
    sizes = []
    forward = scorer.backend.forward
    run = forward.run

    def limited(rows, batch):
        tokens = forward.tokens(rows, batch)
        if tokens > room:
            raise torch.OutOfMemoryError("no room")
        sizes.append(tokens)
        return run(rows, batch)

    monkeypatch.setattr(forward, "run", limited)
    return sizes


def test_running_out_of_memory_halves_the_budget_and_goes_on(scorer, qwen2, monkeypatch, caplog):
    expected = [qwen2.score("Q", completion) for completion in COMPLETIONS]
    sizes = crowd(scorer, monkeypatch, room=300)
    with caplog.at_level(logging.WARNING):
        scores = scorer.compute_batch_reward("Q", COMPLETIONS)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert max(sizes) <= 300
    assert "the token budget is" in caplog.text
    assert scorer.backend.token_budget <= 300
    passed = len(sizes)
    caplog.clear()
    assert scorer.compute_batch_reward("Q", COMPLETIONS) == pytest.approx(expected, abs=1e-5)
    assert len(sizes) == 2 * passed
    assert not caplog.records


def test_a_budget_far_above_what_ran_out_of_memory_is_halved_from_there(qwen2, monkeypatch, caplog):
    scorer = RewardModel(qwen2.path, cache_size=0, token_budget=1 << 20)
    tokens = sum(len(row.ids) for row in scorer.renderer.render(["Q"] * 7, COMPLETIONS, [False] * 7))
    crowd(scorer, monkeypatch, room=300)
    scorer.compute_batch_reward("Q", COMPLETIONS)
    assert scorer.backend.token_budget <= tokens / 2
    assert len([record for record in caplog.records if "ran out of memory" in record.message]) <= 2


def test_a_row_too_large_for_the_device_is_an_error(scorer, monkeypatch):
    crowd(scorer, monkeypatch, room=100)
    with pytest.raises(torch.OutOfMemoryError, match="Lower the reward model's `max_length`"):
        scorer.compute_batch_reward("Q", COMPLETIONS)


def test_a_row_longer_than_the_budget_goes_alone(qwen2, monkeypatch):
    scorer = RewardModel(qwen2.path, token_budget=100)
    sizes = crowd(scorer, monkeypatch, room=10_000)
    scores = scorer.compute_batch_reward("Q", COMPLETIONS)
    assert [size for size in sizes if size > 100] == sorted((size for size in sizes if size > 100), reverse=True)
    assert scores == pytest.approx([qwen2.score("Q", completion) for completion in COMPLETIONS], abs=1e-5)


def test_a_nan_row_leaves_its_neighbours_alone(scorer, qwen2):
    token = qwen2.tokenizer.convert_tokens_to_ids("z")
    scorer.backend.forward.body.embed_tokens.weight[token] = math.nan
    scores = scorer.compute_batch_reward("Q", ["abc", "abz" * 3, "abcd"])
    assert math.isnan(scores[1])
    assert [scores[0], scores[2]] == pytest.approx([qwen2.score("Q", "abc"), qwen2.score("Q", "abcd")], abs=1e-5)


def test_no_row_is_no_forward(scorer, monkeypatch):
    sizes = crowd(scorer, monkeypatch, room=0)
    assert scorer.backend.score([]) == []
    assert sizes == []


def test_no_key_value_cache_is_built(scorer, monkeypatch):
    seen = {}
    scorer.backend.forward.body.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs, training=module.training), with_kwargs=True
    )
    scorer.compute_reward("Q", "A")
    assert seen["use_cache"] is False
    assert seen["training"] is False


@pytest.mark.parametrize("way", ["packed", "padded", "streamed"])
def test_the_policys_mixed_precision_does_not_reach_the_scores(qwen2, monkeypatch, way):
    monkeypatch.setattr(forwards, "can_pack", lambda config: way == "packed")
    scorer = RewardModel(qwen2.path, placement="streamed" if way == "streamed" else "resident", device="cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score = scorer.compute_reward("Q", "A")
    assert score == pytest.approx(qwen2.score("Q", "A"), abs=1e-5)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("way", ["packed", "padded", "streamed"])
def test_cudnns_attention_is_out_while_rows_are_scored_and_then_as_it_was(qwen2, monkeypatch, way, before):
    monkeypatch.setattr(forwards, "can_pack", lambda config: way == "packed")
    scorer = RewardModel(qwen2.path, placement="streamed" if way == "streamed" else "resident", device="cpu")
    body = scorer.backend.body if way == "streamed" else scorer.backend.forward.body
    seen = []
    body.layers[0].register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    was = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(before)
        scorer.compute_reward("Q", "A")
        assert seen == [False]
        assert torch.backends.cuda.cudnn_sdp_enabled() is before
        body.layers[0].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scorer.compute_reward("Q", "B")
        assert torch.backends.cuda.cudnn_sdp_enabled() is before
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was)


def test_rows_that_go_alone_get_the_very_same_score_in_any_company(qwen2):
    """docs/placement.md: a budget of 1 pays for it."""
    rows = [(5, 6, *range(first, first + 3 * first)) for first in range(2, 40, 3)]
    backend = RewardModel(qwen2.path, device="cpu", token_budget=1).backend
    scores = backend.score(rows)
    assert backend.score(rows[::-1])[::-1] == scores
    assert backend.score(rows[:5]) + backend.score(rows[5:]) == scores
    assert [backend.score([row])[0] for row in rows] == scores


def test_an_empty_budget_is_refused(qwen2):
    with pytest.raises(ValueError, match="`token_budget` must be at least 1"):
        RewardModel(qwen2.path, token_budget=0)
