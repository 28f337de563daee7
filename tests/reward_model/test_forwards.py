"""Packed rows are scored as plain single rows are, and what cannot be packed is padded."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AttentionInterface,
    AutoModel,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from trl_hybrid.packing.attention import ATTENTION, can_pack, packed_attention
from trl_hybrid.packing.segments import Segments
from trl_hybrid.reward_model import RewardModel, forwards
from trl_hybrid.reward_model.first_scores import worked_rows
from trl_hybrid.reward_model.forwards import (
    PackedForward,
    PaddedForward,
    agree,
    apply_head,
    choose_forward,
    fault_of,
)
from trl_hybrid.reward_model.packed_rows import pack_rows
from trl_hybrid.reward_model.plan import Family, rows_of


START = tuple(range(10, 40))
ROWS = [(*START, 5), (*START, 6, 7, 8), START, (*START[:20], 9, 9), (1,), (2, 3), tuple(range(60, 0, -1))]


@pytest.fixture(params=["qwen2", "qwen3", "llama"])
def saved(request, save_model):
    return save_model(request.param)


def scores_of(forward, batch):
    return dict(zip(rows_of(batch), forward.run(ROWS, batch), strict=True))


BATCHES = {
    "alone": [Family(0, (number,)) for number in range(len(ROWS))],
    "one family": [Family(20, (0, 1, 2, 3))],
    "families and single rows": [Family(29, (2, 0, 1)), Family(0, (4,)), Family(0, (6,)), Family(1, (5,))],
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_packed_rows_score_as_plain_single_rows(saved, batch):
    model = AutoModelForSequenceClassification.from_pretrained(saved.path).eval()
    scores = scores_of(PackedForward(model.model, model.score), batch)
    assert scores == {row: pytest.approx(saved.score_ids(list(ROWS[row])), abs=1e-5) for row in rows_of(batch)}


def test_padded_rows_score_as_plain_single_rows(saved):
    model = AutoModelForSequenceClassification.from_pretrained(saved.path).eval()
    scores = scores_of(PaddedForward(model.model, model.score), BATCHES["alone"])
    assert scores == {row: pytest.approx(saved.score_ids(list(ROWS[row])), abs=1e-5) for row in range(len(ROWS))}


class Counts(torch.nn.Module):
    """A body whose tokens see all that the mask shows, before and behind: each state is the sum of their ids + 1."""

    def forward(self, input_ids, attention_mask, use_cache):
        assert use_cache is False  # keys and values that nobody reads again
        sums = ((input_ids + 1) * attention_mask).sum(1).float()
        return SimpleNamespace(last_hidden_state=sums[:, None, None].expand(*input_ids.shape, 1))


def test_padding_is_masked():
    """Where attention is causal no token sees the padding behind it; elsewhere the mask alone hides it."""
    head = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
    head.weight.fill_(2.0)
    scores = PaddedForward(Counts(), head).run([(3,), (1, 2, 3, 4)], [Family(0, (0,)), Family(0, (1,))])
    assert scores == [2 * (3 + 1), 2 * (1 + 2 + 3 + 4 + 4)]


def test_padded_rows_are_cut_by_the_padding_that_their_device_puts_up_with(monkeypatch):
    monkeypatch.setattr(forwards, "PADDING_BUDGET", {"cpu": 1, "cuda": 100})
    forward = PaddedForward(Counts(), torch.nn.Linear(1, 1))
    rows = [(1,), (1, 2), (1, 2, 3, 4), (1, 2, 3, 4)]
    plan = forward.plan(rows, 100)
    assert all(family == Family(0, family.rows) and len(family.rows) == 1 for batch in plan for family in batch)
    # One token of padding beside (1, 2), and two more beside four.
    assert sorted(sorted(rows_of(batch)) for batch in plan) == [[0, 1], [2, 3]]
    assert sorted(sorted(rows_of(batch)) for batch in forward.plan(rows, 4)) == [[0, 1], [2], [3]]
    assert forward.tokens(rows, [Family(0, (0,)), Family(0, (2,))]) == 2 * 4
    monkeypatch.setattr(forwards, "PADDING_BUDGET", {"cuda": 1})  # for every device that is not named
    assert len(forward.plan(rows, 100)) == 2


def test_a_shared_start_is_laid_down_once_with_its_positions():
    rows = [(7, 8, 9), (7, 8, 5, 4), (6,)]
    packed = pack_rows(rows, [Family(2, (0, 1)), Family(0, (2,))])
    assert packed.ids.tolist() == [7, 8, 9, 5, 4, 6]
    assert packed.positions.tolist() == [0, 1, 2, 2, 3, 0]
    assert packed.last.tolist() == [2, 4, 5]
    assert packed.segments.own == ((0, 2), (2, 3), (3, 5), (5, 6))
    assert packed.segments.shared == ((0, 0), (0, 2), (0, 2), (5, 5))
    assert packed.segments.query_ends.tolist() == [0, 2, 3, 5, 6]
    assert packed.segments.key_ends.tolist() == [0, 2, 5, 9, 10]
    assert packed.segments.key_index.tolist() == [0, 1, 0, 1, 2, 0, 1, 3, 4, 5]
    assert packed.segments.longest == (2, 4)
    assert packed.segments.device.type == "cpu"


def test_the_forward_computes_no_token_twice_and_no_padding(saved, monkeypatch):
    model = AutoModelForSequenceClassification.from_pretrained(saved.path).eval()
    forward = PackedForward(model.model, model.score)
    seen, caches = [], []
    model.model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    model.model.register_forward_hook(lambda module, args, output: caches.append(output.past_key_values))
    batch = BATCHES["families and single rows"]
    forward.run(ROWS, batch)
    tokens = 29 + (1 + 2 + 4) + 1 + 60 + 2  # the start once, the three rows' own ends, the single rows
    assert seen == [(1, tokens, 32)]
    assert caches == [None]
    assert forward.tokens(ROWS, batch) == tokens


@pytest.mark.parametrize("config", [Qwen2Config, Qwen3Config, LlamaConfig])
def test_the_last_layers_mlp_computes_the_last_tokens_alone(config):
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    body = AutoModel.from_config(config(vocab_size=64, num_hidden_layers=3, **shape)).eval()
    forward = PackedForward(body, torch.nn.Linear(32, 1))
    seen = [[], [], []]
    for layer, shapes in zip(body.layers, seen, strict=True):
        layer.mlp.gate_proj.register_forward_pre_hook(lambda _, inputs, shapes=shapes: shapes.append(inputs[0].shape))
    forward.run(ROWS, BATCHES["one family"])
    assert seen == [[(1, 20 + 11 + 13 + 10 + 2, 32)]] * 2 + [[(1, 4, 32)]]
    body(input_ids=torch.tensor([[5, 6]]), packing=pack_rows([(5, 6)], [Family(0, (0,))]).segments)
    assert seen[2][1] == (1, 2, 32)  # another forward of the same body is whole


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Qwen2Config(), True),
        (Qwen2Config(use_sliding_window=True, sliding_window=8, max_window_layers=1), False),
        (Qwen2Config(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), False),
        (Qwen2Config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}), True),
        (MistralConfig(), False),
        (GPT2Config(), False),
    ],
)
def test_only_rows_that_attention_alone_mixes_are_packed(config, expected):
    assert can_pack(config) is expected


def test_an_architecture_that_cannot_be_packed_is_padded_by_itself(qwen2, save_model, tmp_path):
    path = tmp_path / "mistral"
    qwen2.tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    shape = {
        key: getattr(qwen2.model.config, key) for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    }
    config = MistralConfig(
        vocab_size=len(qwen2.tokenizer), num_attention_heads=4, num_key_value_heads=2, num_labels=1,
        sliding_window=None, **shape,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(path)
    scorer = RewardModel(str(path))
    assert isinstance(scorer.backend.forward, PaddedForward)
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    model.config.pad_token_id = None
    with torch.no_grad():
        expected = model(torch.tensor([qwen2.ids(messages)])).logits[0, 0].item()
    assert scorer.compute_reward("Q", "A") == pytest.approx(expected, abs=1e-5)


def test_a_kernel_that_refuses_is_padded_instead(qwen2, monkeypatch, caplog):
    def refuses(*args, **kwargs):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, refuses)
    with caplog.at_level(logging.WARNING):
        scorer = RewardModel(qwen2.path)
    rule, fix = "Packed rows must score as rows alone do", "Check the versions of torch and transformers."
    fault = "with Qwen2Model on cpu the kernel fails (no kernel image is available). Its rows are padded instead"
    assert [(m.startswith(rule), fault in m, m.endswith(f" slower. {fix}")) for m in caplog.messages] == [(True,) * 3]
    assert scorer.compute_reward("Q", "a") == pytest.approx(qwen2.score("Q", "a"), abs=1e-5)


def test_packing_that_goes_wrong_is_noticed_when_loading_and_padded_instead(qwen2, monkeypatch, caplog):
    """As a kernel would that lets rows see each other."""

    def leaky(module, query, key, value, attention_mask, scaling=None, packing=None, **kwargs):
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )
        return out.transpose(1, 2), None

    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, leaky)
    with caplog.at_level(logging.WARNING):
        scorer = RewardModel(qwen2.path)
    assert "Its rows are padded instead" in caplog.text
    assert isinstance(scorer.backend.forward, PaddedForward)
    assert scorer.compute_batch_reward("Q", ["a", "bcd"]) == pytest.approx(
        [qwen2.score("Q", "a"), qwen2.score("Q", "bcd")], abs=1e-5
    )


def test_a_body_that_is_padded_after_all_attends_as_it_did_before(qwen2, monkeypatch):
    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, inexact(1.0))
    model = AutoModelForSequenceClassification.from_pretrained(qwen2.path, attn_implementation="eager").eval()
    assert isinstance(choose_forward(model.model, model.score, ROWS), PaddedForward)
    assert model.model.config._attn_implementation == "eager"


def test_a_shared_start_of_one_token_is_tried_when_loading(qwen2, monkeypatch):
    def forgetful(*args, packing=None, **kwargs):
        """Attention that sees no shared start."""
        alone = Segments(packing.own, tuple((0, 0) for _ in packing.own), packing.device)
        return packed_attention(*args, packing=alone, **kwargs)

    model = AutoModelForSequenceClassification.from_pretrained(qwen2.path).eval()
    assert isinstance(choose_forward(model.model, model.score, [(1, 2, 3), (1, 4, 5, 6)]), PackedForward)
    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, forgetful)
    model = AutoModelForSequenceClassification.from_pretrained(qwen2.path).eval()
    assert isinstance(choose_forward(model.model, model.score, [(1, 2, 3), (1, 4, 5, 6)]), PaddedForward)


def inexact(share):
    """Attention that is wrong by a share of what it gives, as of a kernel that scales a little differently."""

    def attention(module, query, key, value, attention_mask, scaling=None, packing=None, **kwargs):
        out, _ = packed_attention(module, query, key, value, attention_mask, scaling=scaling, packing=packing)
        return out * (1 + share), None

    return attention


@pytest.mark.parametrize(("share", "way"), [(1e-7, PackedForward), (2e-2, PaddedForward)])
def test_an_error_of_a_hundredth_is_noticed_when_loading(qwen2, monkeypatch, share, way):
    rows = worked_rows(RewardModel(qwen2.path).renderer)
    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, inexact(share))
    model = AutoModelForSequenceClassification.from_pretrained(qwen2.path).eval()
    scores = PackedForward(model.model, model.score).run(rows, [Family(0, (row,)) for row in range(3)])
    right = [qwen2.score_ids(list(row)) for row in rows]
    error = max(abs(score - plain) for score, plain in zip(scores, right, strict=True)) / max(map(abs, right))
    assert error < 1e-6 if way is PackedForward else 2e-3 < error < 1e-2
    assert isinstance(RewardModel(qwen2.path).backend.forward, way)


@pytest.mark.parametrize(("share", "way"), [(0.05, PackedForward), (0.5, PaddedForward)])
def test_in_bf16_an_error_of_a_twentieth_is_rounding_and_of_a_half_is_not(qwen2, monkeypatch, share, way):
    rows = worked_rows(RewardModel(qwen2.path).renderer)
    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, inexact(share))
    model = AutoModelForSequenceClassification.from_pretrained(qwen2.path, dtype=torch.bfloat16).eval()
    assert isinstance(choose_forward(model.model, model.score.float(), rows), way)


def test_scores_agree_up_to_a_share_of_the_largest_or_of_1():
    assert agree([0.5, -20.9], [-0.4, -20.0], 0.05)
    assert not agree([0.5, -21.1], [-0.4, -20.0], 0.05)
    assert agree([0.1], [0.19], 0.1)
    assert not agree([0.1], [0.21], 0.1)
    assert agree([], [], 0.1)


def test_a_fault_names_both_scores_and_none_is_seen_where_there_is_nothing_to_compare_with():
    assert fault_of(lambda: [1.0, 2.0], [1.0, 3.0], 1e-3) == "scores are [1.0, 2.0] instead of [1.0, 3.0]"
    assert fault_of(lambda: [1.0, 2.0], [1.0, math.nan], 1e-3) is None
    assert fault_of(lambda: [1.0], [math.nan], 1e-3) is None


def test_a_head_s_bias_is_added():
    head = torch.nn.Linear(2, 1).requires_grad_(False)
    head.weight.copy_(torch.tensor([[2.0, -1.0]]))
    head.bias.fill_(0.5)
    assert apply_head(head, torch.tensor([[1.0, 3.0], [0.0, 1.0]], dtype=torch.bfloat16)) == [-0.5, -0.5]


def test_a_packed_model_called_without_segments_says_so(qwen2):
    scorer = RewardModel(qwen2.path)
    with pytest.raises(ValueError, match="needs the segments"):
        scorer.backend.forward.body(input_ids=torch.tensor([[1, 2]]))


def test_masks_have_the_type_that_is_asked_for_each_by_itself():
    segments = pack_rows([(7, 8, 9), (7, 8, 5)], [Family(2, (0, 1))]).segments
    for dtype in (torch.bfloat16, torch.float64):
        assert {mask.dtype for mask in segments.masks(dtype) if mask is not None} == {dtype}
