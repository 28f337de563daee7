"""A problem's answers depend on the problem and the seed, and follow the policy's own distribution."""

from collections import Counter

import pytest
import torch
from transformers import GenerationConfig

from trl_hybrid.data import load_tasks
from trl_hybrid.generation import Decoding, SeededDraw, generate_completions


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
