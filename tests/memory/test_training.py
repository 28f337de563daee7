"""Memory of GRPO training, against arithmetic by hand for TinyLlama and what autograd keeps of a small model."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from known_shapes import TINYLLAMA
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.integrations import HfDeepSpeedConfig
from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from trl_hybrid.errors import InputError
from trl_hybrid.memory.training import (
    TILE_TOKENS,
    TILE_WORDS,
    Policy,
    Workload,
    activation_bytes,
    describe_policy,
    estimate_training,
    generation_bytes,
)
from trl_hybrid.packing import attention
from trl_hybrid.training.shared_rows import lay_out


# q, o 2048 x 2048; k, v 2048 x 256; three of 2048 x 5632; two norms: 44,044,288 a layer. 22 of them, two tables of
# 32000 x 2048 and the last norm:
PARAMETERS = 22 * (2 * 2048**2 + 2 * 2048 * 256 + 3 * 2048 * 5632 + 2 * 2048) + 2 * 32000 * 2048 + 2048
# Rank 32, in + out of q and o 4096, of k and v 2304, of the MLP's three 7680: 32 x 35,840 a layer.
ADAPTERS = 22 * 32 * (2 * 4096 + 2 * 2304 + 3 * 7680)

WORK = Workload(rows=8, generated_rows=64, prompt_tokens=128, completion_tokens=384)


def lora(r=32, target_modules="all-linear"):
    return LoraConfig(r=r, target_modules=target_modules, task_type="CAUSAL_LM")


@pytest.fixture(scope="module")
def adapted():
    return describe_policy(TINYLLAMA, torch.bfloat16, lora())


@pytest.fixture(scope="module")
def whole():
    return describe_policy(TINYLLAMA, torch.bfloat16)


def test_the_policy_is_counted_while_its_zero3_settings_are_alive():
    """They make transformers shard every model that it builds."""
    pytest.importorskip("deepspeed")
    settings = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    assert describe_policy(TINYLLAMA, torch.bfloat16).parameters == PARAMETERS
    del settings


def test_what_a_policy_is_made_of_by_hand():
    # In bf16; adapters in fp32, which do not hold the vocabulary's projection.
    assert describe_policy(TINYLLAMA, torch.bfloat16, lora()) == Policy(
        TINYLLAMA,
        parameters=PARAMETERS + ADAPTERS,
        weight_bytes=2 * PARAMETERS + 4 * ADAPTERS,
        base_bytes=2 * PARAMETERS,
        trained_parameters=ADAPTERS,
        trained_bytes=4 * ADAPTERS,
        trained_fp32=ADAPTERS,
        element_bytes=2,
        trains_head=False,
        adapters=True,
    )
    assert describe_policy(TINYLLAMA, torch.bfloat16) == Policy(
        TINYLLAMA,
        parameters=PARAMETERS,
        weight_bytes=2 * PARAMETERS,
        base_bytes=2 * PARAMETERS,
        trained_parameters=PARAMETERS,
        trained_bytes=2 * PARAMETERS,
        trained_fp32=0,
        element_bytes=2,
        trains_head=True,
        adapters=False,
    )


def test_code_of_a_repository_runs_only_where_it_is_asked_for(monkeypatch):
    asked = []

    class Asked(Exception):
        pass

    def from_config(config, dtype, trust_remote_code):
        asked.append(trust_remote_code)
        raise Asked

    monkeypatch.setattr(AutoModelForCausalLM, "from_config", from_config)
    for given_ in ({}, {"trust_remote_code": True}):
        with pytest.raises(Asked):
            describe_policy(TINYLLAMA, **given_)
    assert asked == [False, True]


def test_lora_by_hand(adapted):
    assert ADAPTERS == 25_231_360
    assert adapted.parameters == PARAMETERS + ADAPTERS == 1_100_048_384 + 25_231_360
    parts = estimate_training(adapted, WORK)
    # bf16 weights, fp32 adapters.
    assert parts.weights == 2 * PARAMETERS + 4 * ADAPTERS
    assert parts.gradients == 4 * ADAPTERS
    assert parts.optimizer == 2 * 4 * ADAPTERS
    assert parts.reference == 0


def test_lora_on_named_modules_by_hand():
    policy = describe_policy(TINYLLAMA, torch.bfloat16, lora(r=8, target_modules=["q_proj", "v_proj"]))
    assert policy.trained_parameters == 22 * 8 * (4096 + 2304)


def test_full_fine_tuning_by_hand(whole):
    parts = estimate_training(whole, replace(WORK, beta=0.01))
    assert parts.weights == parts.gradients == parts.reference == 2 * PARAMETERS
    assert parts.optimizer == 2 * 2 * PARAMETERS
    assert estimate_training(whole, WORK).reference == 0


def test_an_adapter_is_its_own_reference(adapted):
    assert estimate_training(adapted, replace(WORK, beta=0.01)).reference == 0


def test_optimizers_and_ddp(adapted):
    def parts(**changes):
        return estimate_training(adapted, replace(WORK, **changes))

    assert parts(optim="paged_adamw_8bit").optimizer == 2 * ADAPTERS
    assert parts(optim="sgd").optimizer == 0
    # DDP's buckets hold the gradients once more.
    assert parts(processes=2).gradients == 2 * parts().gradients


def test_weights_of_four_and_eight_bits_by_hand(adapted):
    policy = describe_policy(TINYLLAMA, torch.bfloat16, lora(), linear_bits=4)
    # All linear weights of the layers, from 16 to 4.5 bits.
    linear = 22 * (2 * 2048**2 + 2 * 2048 * 256 + 3 * 2048 * 5632)
    assert adapted.weight_bytes - policy.weight_bytes == linear * (16 - 4.5) / 8
    assert policy.base_bytes == 2 * PARAMETERS - linear * (16 - 4.5) / 8
    eight = describe_policy(TINYLLAMA, torch.bfloat16, lora(), linear_bits=8)
    assert adapted.weight_bytes - eight.weight_bytes == linear * (16 - 8) / 8


def test_generation_by_hand(adapted):
    # A token's cache: 22 layers x keys and values of 256 each x 2 bytes = 22,528. At the end, 512 tokens of it and of
    # one more layer's 1,024; logits 4 x 4 x 32000. (At the start, 128 x (22,528 + 47,104), less than at the end.)
    assert generation_bytes(adapted, WORK) == 64 * (512 * (22_528 + 1_024) + 512_000) == 804_519_936
    # With 384 tokens of prompt the start is the larger: a layer's forward takes (2 x 2048 + 2048 + 2 x 256 +
    # 3 x 5632) x 2 = 47,104 bytes a token.
    long_prompts = replace(WORK, prompt_tokens=384, completion_tokens=128)
    assert generation_bytes(adapted, long_prompts) == 64 * (384 * (22_528 + 47_104) + 512_000)


def test_activations_by_hand(adapted, whole):
    # A layer keeps 8 x 2048 + 2 x (5 x 2048 + 5 x 2048 + 4 x 5632) = 102,400 bytes a token. Its gradients take
    # 2 x (2 x 2048 + 3 x 5632) + 4 x 5632 = 64,512, the last norm 6 x 2048 = 12,288.
    tokens = 8 * 512
    # 8 x 384 completion tokens: a tile of 32768 bf16 logits and a gradient of 2048 in fp32 each.
    log_probs = 3072 * (32768 * 2 + 2048 * 4)
    bf16_adapters = 2 * ADAPTERS
    kept = 22 * 2 * 2048 + 102_400
    assert activation_bytes(adapted, WORK) == tokens * (kept + 64_512 + 12_288) + log_probs + bf16_adapters
    every_layer = replace(WORK, gradient_checkpointing=False)
    kept = 22 * 102_400
    assert activation_bytes(adapted, every_layer) == tokens * (kept + 64_512 + 12_288) + log_probs + bf16_adapters
    # All bf16, no copies by autocast, but the vocabulary's projection has a gradient in fp32.
    difference = activation_bytes(whole, WORK) - activation_bytes(adapted, WORK)
    assert difference == 32000 * 2048 * 4 - bf16_adapters


def test_many_rows_share_one_tile_of_logits(adapted):
    # 4096 x 32768 x 2 bytes however many rows there are: beyond 4096 completion tokens only the other parts grow.
    more = [activation_bytes(adapted, replace(WORK, rows=rows)) for rows in (16, 32, 48)]
    assert more[2] - more[1] == more[1] - more[0] == 16 * (512 * 269_312 + 384 * 2048 * 4)


def test_activations_and_generation_take_turns(adapted):
    parts = estimate_training(adapted, WORK)
    lasting = parts.weights + parts.optimizer + parts.gradients + parts.context
    assert parts.need.total == lasting + max(parts.activations, parts.generation)


def test_tiles_are_those_of_trl():
    assert (TILE_TOKENS, TILE_WORDS) == (TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE)


def small_llama(layers):
    return LlamaConfig(
        hidden_size=256,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        intermediate_size=704,
        vocab_size=512,
    )


def padded(rows, tokens):
    """Rows as TRL computes them, the first one padded."""
    mask = torch.ones(rows, tokens, dtype=torch.long)
    mask[0, :20] = 0
    return {"input_ids": torch.randint(0, 512, (rows, tokens)), "attention_mask": mask}


def kept_by_autograd(model, **inputs):
    """Run the body as a training step does, and return the bytes of all tensors kept for the backward."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is given out twice
        return tensor

    body = model.base_model.model.model if hasattr(model, "peft_config") else model.model
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        body(**inputs, use_cache=False)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("peft_config", [None, lora(r=4)], ids=["full", "lora"])
def test_a_layer_s_activations_are_near_what_autograd_keeps(peft_config):
    rows, tokens = 4, 256
    work = Workload(rows, 0, tokens - 1, 1, gradient_checkpointing=False)
    measured, estimated = [], []
    for layers in (1, 3):
        model = AutoModelForCausalLM.from_config(small_llama(layers), dtype=torch.bfloat16).train()
        if peft_config is not None:
            model = get_peft_model(model, deepcopy(peft_config))  # it notes the modules it finds
        measured.append(kept_by_autograd(model, **padded(rows, tokens)))
        estimated.append(activation_bytes(describe_policy(small_llama(layers), torch.bfloat16, peft_config), work))
    assert estimated[1] - estimated[0] == pytest.approx(measured[1] - measured[0], rel=0.15)


@pytest.mark.parametrize("groups", [[4], [2, 2], [3, 1], [1, 1, 1, 1]], ids=str)
def test_full_rows_that_share_prompts_take_no_more_than_padded_ones(monkeypatch, groups):
    """What makes the estimate an upper bound of what our trainer computes, on a GPU without a varlen kernel too."""
    monkeypatch.setattr(attention, "TAKES_GROUPED_KEYS", ())
    assert attention.let_segments_through("sdpa")
    prompts = [torch.randint(0, 512, (128,)).tolist() for _ in groups]
    rows = [(prompt, [7] * 128) for prompt, size in zip(prompts, groups, strict=True) for _ in range(size)]
    laid = lay_out(rows, 128, torch.device("cpu"))
    # A prompt's first 127 tokens once where it is shared; each row's other tokens but the last.
    assert laid.ids.shape == (1, sum(127 + 128 * size for size in groups))
    packed = {
        "input_ids": laid.ids, "position_ids": laid.positions, "packing": laid.segments,
        "attention_mask": torch.zeros(1, 1, 1, 1, dtype=torch.long),
    }  # fmt: skip
    one, three = (AutoModelForCausalLM.from_config(small_llama(n), dtype=torch.bfloat16).train() for n in (1, 3))
    ours, theirs = (
        kept_by_autograd(three, **inputs) - kept_by_autograd(one, **inputs) for inputs in (packed, padded(4, 256))
    )
    assert ours <= theirs


WORKLOADS = st.builds(
    Workload,
    st.integers(1, 64),
    st.integers(0, 512),
    st.integers(1, 2048),
    st.integers(1, 2048),
    st.booleans(),
    st.sampled_from([0.0, 0.01]),
)


@given(
    WORKLOADS,
    st.sampled_from(["rows", "generated_rows", "prompt_tokens", "completion_tokens"]),
    st.integers(0, 1000),
    st.booleans(),
)
def test_more_work_never_takes_less(adapted, whole, work, field, more, peft):
    policy = adapted if peft else whole
    larger = replace(work, **{field: getattr(work, field) + more})
    assert estimate_training(policy, work).need.total <= estimate_training(policy, larger).need.total


@given(WORKLOADS)
def test_checkpointing_takes_less(adapted, work):
    kept = activation_bytes(adapted, replace(work, gradient_checkpointing=False))
    assert activation_bytes(adapted, replace(work, gradient_checkpointing=True)) < kept


def test_an_adapter_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"The adapter does not fit the model: .*nonsense"):
        describe_policy(TINYLLAMA, torch.bfloat16, lora(target_modules=["nonsense"]))
