"""Rows that share a prompt are answered as rows alone, and their prompt is computed once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from trl_hybrid.policy.shared_prefill import can_prefill_once, distinct_rows, prompts_prefilled_once


SHAPE: dict = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None,
}  # fmt: skip
PROMPTS = [[5, 6, 7, 8, 9], [7, 8], [5, 6, 7, 8, 9], [3], [7, 8], [5, 6, 7, 8, 9], [9, 5, 6, 7, 8]]


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()


def qwen():
    torch.manual_seed(1)
    return Qwen2ForCausalLM(Qwen2Config(**SHAPE)).eval()


def with_adapter():
    model = get_peft_model(llama(), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    return model.eval()


def rows(prompts=PROMPTS):
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def answers(model, prompts=PROMPTS, **settings):
    torch.manual_seed(4)
    config = GenerationConfig(max_new_tokens=9, eos_token_id=1, pad_token_id=0, **settings)
    return model.generate(**rows(prompts), generation_config=config, disable_compile=True)


@pytest.mark.parametrize("make", [llama, qwen, with_adapter])
@pytest.mark.parametrize(
    "settings", [{"do_sample": False}, {"do_sample": True, "top_k": 0, "repetition_penalty": 1.3}]
)
def test_answers_are_those_of_rows_alone(make, settings):
    model = make()
    # Weights this small make all tokens alike: without it the greedy answer would be decided by rounding.
    model.get_output_embeddings().weight.data.mul_(40)
    expected = answers(model, **settings)
    assert len({tuple(row) for row in expected[:, 5:].tolist()}) > 2
    with prompts_prefilled_once(model):
        found = answers(model, **settings)
    assert found.tolist() == expected.tolist()
    assert "generate" not in model.__dict__
    assert answers(model, **settings).tolist() == expected.tolist()


def widths(model):
    """Shapes of what goes through the model from now on."""
    shapes = []
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple((args[0] if args else kwargs["input_ids"]).shape)),
        with_kwargs=True,
    )
    return shapes


def test_each_prompt_but_its_last_token_is_computed_once():
    model = llama()
    shapes = widths(model)
    with prompts_prefilled_once(model):
        answers(model)
    assert shapes[0] == (4, 4)  # four distinct prompts of seven, five tokens wide
    assert set(shapes[1:]) == {(7, 1)}


@pytest.mark.parametrize("prompts", [[[5, 6], [7, 8]], [[5], [5]]])
def test_without_repeats_or_a_start_transformers_is_left_alone(prompts):
    model = llama()
    shapes = widths(model)
    with prompts_prefilled_once(model):
        answers(model, prompts)
    assert shapes[0] == (2, len(prompts[0]))


def test_a_model_that_it_cannot_serve_is_left_alone():
    other = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=2))
    tuned = get_peft_model(llama(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    for model in (other, tuned):
        assert not can_prefill_once(model)
        with prompts_prefilled_once(model):
            assert "generate" not in model.__dict__
    assert can_prefill_once(llama())
    assert can_prefill_once(with_adapter())


@pytest.mark.parametrize(
    "settings",
    [{"num_beams": 2}, {"num_return_sequences": 2, "do_sample": True}, {"cache_implementation": "static"},
     {"use_cache": False}],
    ids=str,
)  # fmt: skip
def test_what_repeats_rows_or_brings_its_own_cache_is_left_to_transformers(settings):
    model = llama()
    model.get_output_embeddings().weight.data.mul_(40)
    expected = answers(model, **settings)
    shapes = widths(model)
    with prompts_prefilled_once(model):
        assert answers(model, **settings).tolist() == expected.tolist()
    assert shapes[0][0] >= len(PROMPTS)


def test_rows_that_are_given_otherwise_are_left_to_transformers():
    model, ids = llama(), torch.tensor([[5, 6, 7], [5, 6, 7]])
    config = GenerationConfig(max_new_tokens=3, eos_token_id=1, pad_token_id=0)
    expected = model.generate(ids, generation_config=config)
    with prompts_prefilled_once(model):
        assert torch.equal(model.generate(ids, generation_config=config), expected)
        assert torch.equal(model.generate(input_ids=ids, generation_config=config), expected)


def test_a_generate_of_the_users_own_is_there_again_afterwards():
    model = llama()
    own = model.generate
    model.generate = own
    with prompts_prefilled_once(model):
        assert model.generate is not own
    assert model.generate is own


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_distinct_rows_make_the_rows_again(pairs):
    tensor = torch.tensor(pairs)
    first, members = distinct_rows(tensor)
    assert torch.equal(tensor[first][members], tensor)
    assert len(first) == len(set(pairs))
