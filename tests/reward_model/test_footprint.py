"""Memory of a reward model from its configuration alone, against arithmetic by hand; and the placement that fits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

from trl_hybrid.reward_model.footprint import PLACEMENTS, Footprint, choose_placement, measure_footprint


# The shape of AceMath-7B-RM. One layer has
#   q, o    3584 x 3584 each, q with a bias of 3584
#   k, v    3584 x 512 each (4 heads of 128), with a bias of 512
#   mlp     3 x 3584 x 18944
#   norms   2 x 3584
# together 233,057,792 weights.
LAYER = 2 * 3584 * 3584 + 3584 + 2 * (3584 * 512 + 512) + 3 * 3584 * 18944 + 2 * 3584


def acemath(**changes):
    return Qwen2Config(
        **{
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18944,
            "vocab_size": 152064,
            "num_labels": 1,
            **changes,
        }
    )


def test_acemath_by_hand():
    found = measure_footprint(acemath())
    assert found.num_layers == 28
    assert found.layer_bytes == 2 * LAYER == 466_115_584
    assert found.num_layers * found.layer_bytes == 13_051_236_352
    assert found.embedding_bytes == 152064 * 3584 * 2 == 1_089_994_752
    # The last norm in bf16, the head in fp32.
    assert found.other_bytes == 3584 * 2 + 3584 * 4
    # Hidden states in and out 2 x 3584, queries 3584, keys and values 2 x 512, MLP 3 x 18944, in bf16.
    assert found.workspace_bytes_per_token == (2 * 3584 + 3584 + 2 * 512 + 3 * 18944) * 2 == 137_216
    # A hidden state of 3584, sine and cosine of 128 each.
    assert found.hidden_bytes_per_token == (3584 + 2 * 128) * 2
    assert found.streamable


def test_acemath_on_a_gpu_by_hand():
    found = measure_footprint(acemath())
    # 13.051 + 1.090 GB of weights, 16384 x 137,216 bytes.
    assert found.gpu_bytes("resident") == 14_141_252_608 + 2_248_146_944
    # Three layers, norm and head, 8 x 8192 hidden states, 8192 x 137,216 bytes.
    assert found.gpu_bytes("streamed") == 3 * 466_115_584 + 21_504 + 65_536 * 7_680 + 8192 * 137_216
    assert found.gpu_bytes("streamed") == pytest.approx(3.03e9, rel=0.01)
    assert found.gpu_bytes("zero3", 1000) == 2 * 466_115_584 + 1_089_994_752 + 21_504 + 137_216_000
    assert found.gpu_bytes("cpu") == 0


def test_acemath_in_host_memory_by_hand():
    found = measure_footprint(acemath())
    assert found.host_bytes("resident") == 0
    # A layer of 466,115,584 bytes takes 2^29 of pinned memory; the embedding is not pinned.
    assert found.host_bytes("streamed") == 28 * 2**29 + 1_089_994_752 + 21_504 == 16_122_401_792
    assert found.host_bytes("zero3", processes=4) == 14_141_252_608 // 4
    # On a CPU the weights are fp32 where no type is asked for.
    assert found.host_bytes("cpu") == 2 * 14_141_252_608
    assert measure_footprint(acemath(), torch.bfloat16).host_bytes("cpu") == 14_141_252_608


def test_fp32_doubles_the_body_and_not_the_head():
    half, full = measure_footprint(acemath(), torch.bfloat16), measure_footprint(acemath(), torch.float32)
    assert full.layer_bytes == 2 * half.layer_bytes
    assert full.workspace_bytes_per_token == 2 * half.workspace_bytes_per_token
    assert full.other_bytes == 3584 * 4 + 3584 * 4


def test_counting_leaves_the_configuration_as_it_was():
    config = acemath()
    before = config.to_dict()
    measure_footprint(config)
    assert config.to_dict() == before


@pytest.mark.parametrize(
    ("config", "streamable"),
    [
        (acemath(num_hidden_layers=2), True),
        (Qwen3Config(num_hidden_layers=2, hidden_size=64, num_labels=1), True),
        (LlamaConfig(num_hidden_layers=2, hidden_size=64, num_labels=1), True),
        (GPT2Config(n_layer=2, n_embd=64, n_head=4, num_labels=1), False),
        (BertConfig(num_hidden_layers=2, hidden_size=64, num_attention_heads=4, num_labels=1), False),
    ],
)
def test_architectures(config, streamable):
    found = measure_footprint(config)
    assert found.num_layers == 2
    assert found.streamable is streamable


# 10 layers of 1 GB, an embedding of 1 GB: resident 11 GB, streamed 3 GB, zero3 3 GB, with no workspace.
SMALL = Footprint(2, 4, 10, 10**9, 10**9, 0, 0, 0)
RIGID = Footprint(2, 4, 10, 10**9, 10**9, 0, 0, 0, streamable=False)


@pytest.mark.parametrize(
    ("footprint", "free", "reserved", "expected"),
    [
        (SMALL, 11 * 10**9, 0, "resident: needs 11.0 GB on the GPU, 11.0 GB are free"),
        (
            SMALL,
            24 * 10**9,
            14_200_000_000,
            "streamed: needs 3.0 GB on the GPU, resident would need 11.0 GB, "
            "9.8 GB are free (24.0 GB less 14.2 GB for training)",
        ),
        (
            SMALL,
            2 * 10**9,
            0,
            "cpu: streamed would need 3.0 GB on the GPU, resident would need 11.0 GB, 2.0 GB are free",
        ),
        (
            RIGID,
            4 * 10**9,
            0,
            "cpu: resident would need 11.0 GB on the GPU, 4.0 GB are free; this architecture cannot be streamed, "
            "zero3 would need 3.0 GB: choose that",
        ),
        (
            RIGID,
            2 * 10**9,
            3 * 10**9,
            "cpu: resident would need 11.0 GB on the GPU, 0.0 GB are free (2.0 GB less 3.0 GB for training); this "
            "architecture cannot be streamed, zero3 would need 3.0 GB",
        ),
        (SMALL, None, 0, "cpu: there is no GPU"),
    ],
)
def test_choice_and_its_reason(footprint, free, reserved, expected):
    placement, reason = choose_placement(footprint, free, 1, reserved)
    assert reason == expected
    assert reason.startswith(f"{placement}:")


SIZES = st.integers(0, 10**11)
FOOTPRINTS = st.builds(
    Footprint, st.just(2), st.just(4), st.integers(1, 100), SIZES, SIZES, SIZES, SIZES, SIZES, st.booleans()
)


@given(FOOTPRINTS, SIZES, st.integers(1, 10**5), SIZES)
def test_nothing_is_chosen_that_does_not_fit(footprint, free, tokens, reserved):
    placement, _ = choose_placement(footprint, free, tokens, reserved)
    assert placement in ("resident", "streamed", "cpu")
    assert footprint.gpu_bytes(placement, tokens) <= max(0, free - reserved)
    assert footprint.streamable or placement != "streamed"


@given(FOOTPRINTS, SIZES, SIZES, st.integers(1, 10**5))
def test_more_memory_never_gives_a_slower_placement(footprint, free, more, tokens):
    speed = ["cpu", "streamed", "resident"]
    before, _ = choose_placement(footprint, free, tokens)
    after, _ = choose_placement(footprint, free + more, tokens)
    assert speed.index(after) >= speed.index(before)


@given(FOOTPRINTS, st.integers(1, 10**5), st.integers(0, 10**5))
def test_more_tokens_never_take_less(footprint, tokens, more):
    for placement in PLACEMENTS:
        assert footprint.gpu_bytes(placement, tokens) <= footprint.gpu_bytes(placement, tokens + more)


def test_weights_are_counted_while_the_policy_s_zero3_settings_are_alive():
    """They make transformers shard every model that it builds."""
    pytest.importorskip("deepspeed")
    settings = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    assert is_deepspeed_zero3_enabled()
    assert measure_footprint(acemath()).weight_bytes == 14_141_252_608
    assert is_deepspeed_zero3_enabled()
    del settings
