"""A problem's answers depend on the problem and the seed, and follow the policy's own distribution."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from trl_hybrid.data import load_tasks
from trl_hybrid.policy.generation import Decoding, SeededDraw, end_tokens, generate_completions, warpers


@pytest.fixture(scope="module")
def prompts():
    # Of different lengths, so that batches are padded.
    tasks = load_tasks("data/addition", split="test", max_rows=3)["prompt"]
    return [*tasks, [{"role": "user", "content": "What is 7 + 8?"}]]


def test_answers_do_not_depend_on_the_batch(policy, tokenizer, prompts):
    decoding = Decoding(num_samples=3, temperature=1.0, max_completion_length=40)
    together = generate_completions(policy, tokenizer, prompts, range(4), decoding)
    alone = [generate_completions(policy, tokenizer, [prompts[n]], [n], decoding)[0] for n in reversed(range(4))]
    assert together == alone[::-1]
    assert len({answer.text for group in together for answer in group}) > 6


def test_the_first_answer_is_greedy_and_samples_near_temperature_0_are(policy, tokenizer, prompts):
    ids = tokenizer.apply_chat_template(prompts[0], add_generation_prompt=True, return_tensors="pt")["input_ids"]
    own = policy.generate(ids, generation_config=GenerationConfig(do_sample=False, max_new_tokens=40, pad_token_id=2))
    expected = tokenizer.decode(own[0, ids.shape[1] :], skip_special_tokens=True)
    hot = generate_completions(policy, tokenizer, prompts[:1], [0], Decoding(2, temperature=2.0, seed=1))
    cold = generate_completions(policy, tokenizer, prompts[:1], [0], Decoding(2, temperature=1e-4))
    assert hot[0][0].text == expected
    assert {answer.text for answer in cold[0]} == {expected}


def test_number_and_seed_decide_and_the_global_random_state_is_left_alone(policy, tokenizer, prompts):
    def answers(number, seed):
        decoding = Decoding(num_samples=6, temperature=1.5, max_completion_length=40, seed=seed)
        return generate_completions(policy, tokenizer, prompts[:1], [number], decoding)

    state = torch.get_rng_state()
    first = answers(0, 0)
    torch.manual_seed(99)
    assert answers(0, 0) == first
    assert answers(1, 0) != first
    assert answers(0, 1) != first
    torch.set_rng_state(state)
    answers(0, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_answer_without_an_end_is_truncated(policy, tokenizer, prompts):
    cut = generate_completions(policy, tokenizer, prompts, range(4), Decoding(1, max_completion_length=3))
    whole = generate_completions(policy, tokenizer, prompts, range(4), Decoding(0, max_completion_length=60))
    assert all(answer.truncated for group in cut for answer in group)
    assert not any(answer.truncated for group in whole for answer in group)


def test_any_of_the_policys_end_tokens_ends_an_answer(policy, tokenizer, prompts, monkeypatch):
    ids = tokenizer.apply_chat_template(prompts[0], add_generation_prompt=True, return_tensors="pt")["input_ids"]
    own = policy.generate(ids, generation_config=GenerationConfig(do_sample=False, max_new_tokens=40, pad_token_id=2))
    third = own[0, ids.shape[1] + 2].item()
    assert third not in (*own[0, ids.shape[1] : ids.shape[1] + 2].tolist(), tokenizer.eos_token_id)
    monkeypatch.setattr(policy.generation_config, "eos_token_id", [tokenizer.eos_token_id, third])
    (answer,) = generate_completions(policy, tokenizer, prompts[:1], [0], Decoding(0, max_completion_length=40))[0]
    assert answer.text == tokenizer.decode(own[0, ids.shape[1] : ids.shape[1] + 3], skip_special_tokens=True)
    assert not answer.truncated


def test_the_tokenizers_end_token_ends_an_answer_where_the_model_names_none(policy, tokenizer, prompts, monkeypatch):
    def greedy():
        return generate_completions(policy, tokenizer, prompts, range(4), Decoding(0, max_completion_length=40))

    expected = greedy()
    monkeypatch.setattr(policy.generation_config, "eos_token_id", None)
    assert greedy() == expected


@pytest.mark.parametrize(
    ("model", "tokenizer", "ends"),
    [([5, 2, 7], 2, [2, 5, 7]), (5, 2, [2, 5]), (2, 2, [2]), (None, 2, [2]), ([5], None, [5]), (None, None, [])],
)
def test_end_tokens_are_the_tokenizers_and_the_models_each_once(model, tokenizer, ends):
    policy = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=model))
    assert end_tokens(policy, SimpleNamespace(eos_token_id=tokenizer)) == ends


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0.5, 0.25, 0.125, 0.0625, 0.0625]),
        ({"temperature": 0.5}, [0.25, 1 / 16, 1 / 64, 1 / 256, 1 / 256]),  # squared
        ({"temperature": 2.0}, [0.5**0.5, 0.5, 0.125**0.5, 0.25, 0.25]),  # roots
        ({"top_k": 1}, [0.5]),
        ({"top_p": 0.8}, [0.5, 0.25, 0.125]),  # two have 0.75
        ({"min_p": 0.0}, [0.5, 0.25, 0.125, 0.0625, 0.0625]),
        ({"min_p": 0.2}, [0.5, 0.25, 0.125]),  # at least 0.2 * 0.5
        # In this order: of the squares two have 0.93, and of those two and no others min_p asks for 0.3 of the first.
        ({"temperature": 0.5, "top_p": 0.8}, [0.25, 1 / 16]),
        ({"temperature": 0.5, "top_p": 0.8, "min_p": 0.3}, [0.25]),
        ({"top_k": 2, "top_p": 0.6}, [0.5]),  # of the two that top_k leaves, the first has 2 / 3
    ],
)
def test_settings_of_the_decoding_reach_the_distribution(settings, kept):
    probabilities = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625]])
    decoding = Decoding(**{"temperature": 1.0, **settings})
    left = LogitsProcessorList(warpers(decoding))(torch.zeros(1, 1, dtype=torch.long), probabilities.log())
    assert left.softmax(-1)[0].tolist() == pytest.approx([p / sum(kept) for p in kept] + [0.0] * (5 - len(kept)))


def test_the_repetition_penalty_reaches_the_model(policy, tokenizer, prompts):
    def greedy(penalty):
        decoding = Decoding(0, max_completion_length=12, repetition_penalty=penalty)
        return generate_completions(policy, tokenizer, prompts[:1], [0], decoding)[0][0].text

    assert greedy(1.0) != greedy(50.0)


def set_uniforms(draw, numbers):
    draw.uniforms = torch.tensor([numbers], dtype=torch.float64)
    return draw


def test_a_token_of_probability_zero_is_never_drawn():
    """Also where the random number falls on the border between two tokens, or is 0."""
    scores = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).log()
    drawn = []
    for position, uniform in enumerate((0.0, 0.25, 0.5, 0.75, 1.0 - 2**-53)):
        draw = SeededDraw([0], Decoding(1, greedy=False, max_completion_length=5), prompt_length=0)
        set_uniforms(draw, [9.0] * position + [uniform] + [9.0] * (4 - position))
        drawn.append(draw(torch.zeros(1, position, dtype=torch.long), scores).argmax().item())
    assert drawn == [1, 1, 3, 3, 3]


def test_the_largest_random_number_draws_a_token_of_the_vocabulary_however_its_probabilities_round():
    generator = torch.Generator().manual_seed(0)
    short = 0
    for _ in range(50):
        scores = torch.randn(1, 3000, generator=generator)
        short += scores.double().softmax(-1).cumsum(-1)[0, -1].item() < 1.0 - 2**-53
        draw = SeededDraw([0], Decoding(1, greedy=False, max_completion_length=1), prompt_length=0)
        left = set_uniforms(draw, [1.0 - 2**-53])(torch.zeros(1, 0, dtype=torch.long), scores)
        assert left.isfinite().sum() == 1
        assert left.dtype == scores.dtype
    assert short  # sums of less than 1 were among them


def test_only_the_first_answer_to_each_problem_is_greedy():
    draw = SeededDraw([0, 1], Decoding(2, max_completion_length=1), prompt_length=0)
    set_uniforms(draw, [0.0]).uniforms = torch.zeros(6, 1, dtype=torch.float64)  # draws the first token that can be
    left = draw(torch.zeros(6, 0, dtype=torch.long), torch.tensor([[0.0, 1.0, 3.0, 2.0]] * 6))
    assert left.argmax(-1).tolist() == [2, 0, 0, 2, 0, 0]


def test_random_numbers_belong_to_seed_problem_sample_and_position():
    def uniforms(numbers, **settings):
        decoding = Decoding(**{"num_samples": 2, "greedy": True, "max_completion_length": 4, **settings})
        return SeededDraw(numbers, decoding, prompt_length=3).uniforms

    both = uniforms([5, 8])
    assert both.shape == (6, 4)
    assert both.unique().numel() == 24
    assert torch.equal(both, torch.cat([uniforms([5]), uniforms([8])]))
    assert not torch.isin(uniforms([5], seed=1), both).any()


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.3])
    draws = 20_000
    draw = SeededDraw([7], Decoding(num_samples=draws, greedy=False, max_completion_length=1), prompt_length=2)
    scores = draw(torch.zeros(draws, 2, dtype=torch.long), probabilities.log().expand(draws, 4))
    assert (scores.isfinite().sum(-1) == 1).all()
    counts = Counter(scores.argmax(-1).tolist())
    assert counts[1] == 0
    # Four standard deviations of a share of 20,000 draws are at most 0.015.
    assert [counts[token] / draws for token in (0, 2, 3)] == pytest.approx([0.5, 0.2, 0.3], abs=0.015)


def test_each_position_draws_anew():
    draw = SeededDraw([0], Decoding(num_samples=1, greedy=False, max_completion_length=64), prompt_length=5)
    even = torch.zeros(1, 10)
    tokens = [draw(torch.zeros(1, 5 + t, dtype=torch.long), even).argmax().item() for t in range(64)]
    assert len(set(tokens)) == 10


def test_the_chat_template_gets_its_arguments(policy, tokenizer, prompts, monkeypatch):
    def answers(**kwargs):
        decoding = Decoding(0, max_completion_length=40, chat_template_kwargs=kwargs)
        return generate_completions(policy, tokenizer, prompts[:1], [0], decoding)

    expected = answers()
    asking = "{% if asked %}" + tokenizer.chat_template + "{% else %}{{ eos_token }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", asking)
    assert answers(asked=True) == expected != answers()


def test_an_answer_that_is_broken_off_ends_there(policy, tokenizer, prompts):
    asked = iter([False, False, True])
    decoding = Decoding(num_samples=1, max_completion_length=40)
    broken = generate_completions(policy, tokenizer, prompts[:2], range(2), decoding, lambda: next(asked))
    whole = generate_completions(policy, tokenizer, prompts[:2], range(2), decoding)
    for parts, answers in zip(broken, whole, strict=True):
        for part, answer in zip(parts, answers, strict=True):
            assert answer.text.startswith(part.text)
            assert part.truncated
            assert len(tokenizer(part.text, add_special_tokens=False)["input_ids"]) <= 3
