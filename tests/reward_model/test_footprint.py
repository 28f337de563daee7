"""Memory of a reward model from its configuration alone, against arithmetic by hand; and the placement that fits."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

from trl_hybrid.reward_model.footprint import (
    PLACEMENTS,
    Footprint,
    Need,
    default_tokens,
    find_layers,
    layer_widths,
    measure_footprint,
    pinned_bytes,
)
from trl_hybrid.reward_model.placement import check_host_memory, choose_placement


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
    # 13.051 + 1.090 GB of weights last, 16384 x 137,216 bytes pass.
    assert found.on_gpu("resident") == Need(14_141_252_608, 2_248_146_944)
    # Three layers, norm and head last; 8 x 8192 hidden states and 8192 x 137,216 bytes pass.
    assert found.on_gpu("streamed") == Need(3 * 466_115_584 + 21_504, 65_536 * 7_680 + 8192 * 137_216)
    assert found.on_gpu("streamed") == Need(1_398_368_256, 1_627_389_952)
    # Only norm and head last: two layers and the embedding are gathered for a forward of 1000 x 137,216 bytes.
    assert found.on_gpu("zero3", 1000) == Need(21_504, 2 * 466_115_584 + 1_089_994_752 + 137_216_000)
    assert found.on_gpu("cpu") == Need(0, 0)
    assert found.on_gpu("streamed").total == 1_398_368_256 + 1_627_389_952
    assert found.on_gpu("resident", 1000).total == 14_141_252_608 + 137_216_000


def test_a_forward_is_short_on_a_cpu():
    assert default_tokens("cpu", torch.device("cpu")) == default_tokens("streamed", torch.device("cpu")) == 1024


def test_who_works_in_turn_needs_the_larger_workspace_once():
    training, scoring = Need(3 * 10**9, 3_500_000_000), Need(1_398_368_256, 1_627_389_952)
    assert training.beside(scoring) == scoring.beside(training) == Need(4_398_368_256, 3_500_000_000)
    assert training.beside(scoring).total == 7_898_368_256  # and not 9,525,758,208


def test_acemath_in_host_memory_by_hand():
    found = measure_footprint(acemath())
    assert found.host_bytes("resident") == 0
    # A layer of 466,115,584 bytes takes 2^29 of pinned memory; two pieces of 1024 gathered rows, of 7,680 bytes at
    # most, take 2^24; the embedding is not pinned.
    assert found.host_bytes("streamed") == 28 * 2**29 + 2**24 + 1_089_994_752 + 21_504 == 16_139_179_008
    # On a CPU the weights are fp32 where no type is asked for.
    assert found.host_bytes("cpu") == 2 * 14_141_252_608
    assert measure_footprint(acemath(), torch.bfloat16).host_bytes("cpu") == 14_141_252_608


def test_zero3_pins_each_weight_on_its_own():
    found = measure_footprint(acemath())
    # In bytes: q, o 25,690,112 each -> 2^25; k, v 3,670,016 -> 2^22; gate, up, down 135,790,592 -> 2^28, nearly twice
    # as much; the biases 7,168 -> 2^13 and 2 x 1,024 -> 2^10; two norms 7,168 -> 2^13.
    layer = 2 * 2**25 + 2 * 2**22 + 3 * 2**28 + 2**13 + 2 * 2**10 + 2 * 2**13
    # The embedding, 1,089,994,752 -> 2^31; the last norm and the head, 7,168 -> 2^13 each.
    whole = 28 * layer + 2**31 + 2 * 2**13
    assert found.host_bytes("zero3") == whole == 26_810_753_024
    # Shared by four, each piece is a quarter of a power of two, and the sum is the same.
    assert found.host_bytes("zero3", processes=4) * 4 == whole
    # By three: 8,563,372 -> 2^24, 1,223,340 -> 2^21, 45,263,532 -> 2^26, 2,390 -> 2^12, 342 -> 2^9; 363 MB -> 2^29.
    layer = 2 * 2**24 + 2 * 2**21 + 3 * 2**26 + 2**12 + 2 * 2**9 + 2 * 2**12
    assert found.host_bytes("zero3", processes=3) == 28 * layer + 2**29 + 2 * 2**12 == 7_231_361_024


@pytest.mark.parametrize(("size", "pinned"), [(0, 0), (1, 1), (4096, 4096), (4097, 8192)])
def test_pinned_memory_is_rounded_up_to_powers_of_two(size, pinned):
    assert pinned_bytes(size) == pinned


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
SMALL = Footprint(2, 4, 10, 10**9, 10**9, 0, (5 * 10**8,) * 11, 0, 0)
RIGID = replace(SMALL, streamable=False)


@pytest.mark.parametrize(
    ("footprint", "free", "reserved", "expected"),
    [
        (SMALL, 11 * 10**9, 0, "resident: needs 11.0 GB on the GPU, 11.0 GB are free"),
        (
            SMALL,
            24 * 10**9,
            14_200_000_000,
            "streamed: needs 3.0 GB on the GPU, resident would need 11.0 GB on the GPU, "
            "9.8 GB are free (24.0 GB less 14.2 GB for training)",
        ),
        (
            SMALL,
            2 * 10**9,
            0,
            "cpu: resident would need 11.0 GB on the GPU, streamed would need 3.0 GB on the GPU, 2.0 GB are free",
        ),
        (
            RIGID,
            4 * 10**9,
            0,
            "cpu: resident would need 11.0 GB on the GPU, this architecture cannot be streamed (zero3 would need "
            "3.0 GB on the GPU: choose that), 4.0 GB are free",
        ),
        (
            RIGID,
            2 * 10**9,
            3 * 10**9,
            "cpu: resident would need 11.0 GB on the GPU, this architecture cannot be streamed (zero3 would need "
            "3.0 GB on the GPU), 0.0 GB are free (2.0 GB less 3.0 GB for training)",
        ),
        (SMALL, None, 0, "cpu: there is no GPU"),
    ],
)
def test_choice_and_its_reason(footprint, free, reserved, expected):
    placement, reason = choose_placement(footprint, free, 1, Need(reserved))
    assert reason == expected
    assert reason.startswith(f"{placement}:")


def test_zero3_is_advised_from_what_a_forward_of_so_many_tokens_takes():
    # Two layers and the embedding are 3 GB, and a forward of 100 tokens takes 1 GB more.
    working = replace(RIGID, workspace_bytes_per_token=10**7)
    expected = "zero3 would need 4.0 GB on the GPU"
    assert f"{expected}: choose that" in choose_placement(working, 4 * 10**9, 100)[1]
    assert f"{expected})" in choose_placement(working, 4 * 10**9 - 1, 100)[1]


def test_nothing_goes_where_not_a_byte_is_left():
    small = Footprint(2, 4, 1, 1, 0, 0, (1,), 0, 0)
    assert choose_placement(small, 1, 1)[0] == "resident"
    assert choose_placement(small, 0, 1)[0] == "cpu"
    assert choose_placement(small, 1, 1, Need(5))[0] == "cpu"


def test_scoring_uses_what_training_leaves_between():
    # 4 GB of weights and 3 GB of workspace each; training lasts for 2 GB and passes for 3 GB: 10 GB are needed, or 9.
    working = Footprint(2, 4, 4, 10**9, 0, 0, (), 0, 3 * 10**9)
    assert choose_placement(working, 9 * 10**9, 1, Need(2 * 10**9, 3 * 10**9))[0] == "resident"
    assert choose_placement(working, 9 * 10**9 - 1, 1, Need(2 * 10**9, 3 * 10**9))[0] != "resident"
    assert choose_placement(working, 9 * 10**9, 1, Need(5 * 10**9))[0] != "resident"
    # With 1 GB of training's to use, 2 GB of the workspace come on top.
    assert "needs 6.0 GB on the GPU" in choose_placement(working, 20 * 10**9, 1, Need(0, 10**9))[1]


# Streamed, 10 layers of 1 GB take 2^30 bytes each and the embedding 1 GB: 11.7 GB. On the CPU, in fp32, all take 22.
@pytest.mark.parametrize(
    ("free", "host", "chosen"),
    [
        (5 * 10**9, 11_737_418_240, "streamed"),
        (5 * 10**9, 11_737_418_239, None),
        (2 * 10**9, 22 * 10**9, "cpu"),
        (2 * 10**9, 22 * 10**9 - 1, None),
        (None, 22 * 10**9, "cpu"),
        (None, 22 * 10**9 - 1, None),
        (11 * 10**9, 0, "resident"),
    ],
)
def test_a_placement_in_host_memory_must_fit_there(free, host, chosen):
    if chosen is not None:
        assert choose_placement(SMALL, free, 1, host_bytes=host)[0] == chosen
    else:
        with pytest.raises(ValueError, match="No placement of the reward model fits"):
            choose_placement(SMALL, free, 1, host_bytes=host)


def test_where_streaming_lacks_host_memory_the_cpu_may_do():
    # In bf16 the CPU needs 11.0 GB, less than pinned pieces of 11.7.
    half = replace(SMALL, cpu_bytes_per_element=2)
    assert choose_placement(half, 5 * 10**9, 1, host_bytes=11 * 10**9) == (
        "cpu",
        "cpu: resident would need 11.0 GB on the GPU, streamed would need 11.7 GB of pinned host memory, "
        "5.0 GB are free",
    )


def test_where_nothing_fits_the_message_has_needs_room_and_a_way_out():
    with pytest.raises(ValueError, match="No placement") as error:
        choose_placement(SMALL, 5 * 10**9, 1, host_bytes=8 * 10**9)
    assert str(error.value) == (
        "No placement of the reward model fits: resident would need 11.0 GB on the GPU, streamed would need 11.7 GB "
        "of pinned host memory, cpu would need 22.0 GB of host memory; 5.0 GB are free, and 8.0 GB of the machine's "
        "or container's memory for each of its processes. Raise the container's limit, take a smaller reward model "
        "or number type (`reward_model_dtype: bfloat16` takes 11.0 GB on the CPU), or, with several processes, "
        "`zero3`, which shares one copy between them."
    )


def test_a_number_type_that_takes_no_less_is_no_way_out():
    half = replace(SMALL, cpu_bytes_per_element=2)
    with pytest.raises(ValueError, match="reward model or number type, or, with several processes, `zero3`"):
        choose_placement(half, 2 * 10**9, 1, host_bytes=8 * 10**9)


def test_a_chosen_placement_must_fit_into_host_memory_too():
    for placement, needed in (("streamed", 11_737_418_240), ("cpu", 22 * 10**9), ("zero3", 11 * 2**30)):
        check_host_memory(SMALL, placement, needed)
        with pytest.raises(ValueError, match=rf"'{placement}' needs .* in each process, .* free for each"):
            check_host_memory(SMALL, placement, needed - 1)
    check_host_memory(SMALL, "zero3", 11 * 2**29, processes=2)


SIZES = st.integers(0, 10**11)
FOOTPRINTS = st.builds(
    Footprint,
    st.just(2),
    st.just(4),
    st.integers(1, 100),
    SIZES,
    SIZES,
    SIZES,
    st.just(()),
    SIZES,
    SIZES,
    st.booleans(),
)
NEEDS = st.builds(Need, SIZES, SIZES)


@given(FOOTPRINTS, SIZES, st.integers(1, 10**5), NEEDS)
def test_nothing_is_chosen_that_does_not_fit(footprint, free, tokens, reserved):
    placement, _ = choose_placement(footprint, free, tokens, reserved)
    assert placement in ("resident", "streamed", "cpu")
    assert placement == "cpu" or reserved.beside(footprint.on_gpu(placement, tokens)).total <= free
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
        assert footprint.on_gpu(placement, tokens).total <= footprint.on_gpu(placement, tokens + more).total


def test_weights_are_counted_while_the_policy_s_zero3_settings_are_alive():
    """They make transformers shard every model that it builds."""
    pytest.importorskip("deepspeed")
    settings = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    assert is_deepspeed_zero3_enabled()
    assert measure_footprint(acemath()).weight_bytes == 14_141_252_608
    assert is_deepspeed_zero3_enabled()
    del settings


def test_widths_of_heads_and_mlps_that_the_configuration_names_or_leaves_out():
    wide = Qwen3Config(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=128)
    assert {name: layer_widths(wide)[name] for name in ("head", "query", "key")} == {
        "head": 128, "query": 512, "key": 256,
    }  # fmt: skip
    assert layer_widths(GPT2Config(n_embd=64, n_head=4))["intermediate"] == 4 * 64


def test_the_layers_are_the_list_with_most_weights():
    body = nn.Module()
    body.few, body.layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(5)), nn.ModuleList([nn.Linear(9, 9)])
    assert find_layers(body) is body.layers
    empty = nn.Module()
    empty.layers = nn.ModuleList()
    with pytest.raises(ValueError, match="must hold a list of layers, but Module holds none"):
        find_layers(empty)


def test_code_of_a_repository_runs_only_where_it_is_asked_for(monkeypatch):
    asked = []

    class Asked(Exception):
        pass

    def from_config(config, trust_remote_code):
        asked.append(trust_remote_code)
        raise Asked

    monkeypatch.setattr("transformers.AutoModelForSequenceClassification.from_config", from_config)
    for given_ in ({}, {"trust_remote_code": True}):
        with pytest.raises(Asked):
            measure_footprint(acemath(), **given_)
    assert asked == [False, True]
