"""Accuracy is the mean over problems and samples, and measuring it leaves no trace in training."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from trl_hybrid.data import load_tasks
from trl_hybrid.evaluate import HeldOutAccuracy, accuracy, generate_completions
from trl_hybrid.verifier import MathVerifier


@pytest.fixture(scope="module")
def policy():
    return AutoModelForCausalLM.from_pretrained("data/embedded_policy", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = AutoTokenizer.from_pretrained("data/embedded_policy")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(num_workers=1) as verifier:
        yield verifier


@pytest.fixture(scope="module")
def tasks():
    return load_tasks("data/addition", split="test", max_rows=24)


def config(tokenizer, **kwargs):
    return GenerationConfig(
        max_new_tokens=64, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **kwargs
    )


def one_by_one(policy, tokenizer, tasks):
    """The oracle: each prompt alone, no padding, and the boxed number compared as a string."""
    right = []
    for task in tasks:
        ids = tokenizer.apply_chat_template(task["prompt"], add_generation_prompt=True, return_tensors="pt")[
            "input_ids"
        ]
        out = policy.generate(ids, generation_config=config(tokenizer, do_sample=False))
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        right.append(f"\\boxed{{{task['solution']}}}" in text)
    return sum(right) / len(right)


def test_greedy_accuracy_equals_one_prompt_at_a_time(policy, tokenizer, verifier, tasks):
    measured = accuracy(
        policy, tokenizer, tasks, verifier, config(tokenizer, do_sample=False), Accelerator(cpu=True), batch_size=7
    )
    expected = one_by_one(policy, tokenizer, tasks)
    assert 0 < expected < 1
    assert measured == expected


def test_samples_of_one_prompt_are_contiguous(policy, tokenizer, tasks):
    prompts = [task["prompt"] for task in tasks.select(range(5))]
    nearly_greedy = config(tokenizer, do_sample=True, temperature=1e-4, num_return_sequences=3)
    completions = generate_completions(policy, tokenizer, prompts, nearly_greedy, batch_size=2)
    greedy = generate_completions(policy, tokenizer, prompts, config(tokenizer, do_sample=False))
    assert len(set(greedy)) > 1
    assert completions == [text for text in greedy for _ in range(3)]


def test_mean_of_samples_is_a_mean_and_not_the_best_of_them(policy, tokenizer, tasks, verifier):
    class Alternating:
        """Calls every second completion right."""

        def verify_batch(self, completions, solutions, prompts):
            assert prompts == [row["prompt"] for row in tasks for _ in range(2)]
            assert solutions == [row["solution"] for row in tasks for _ in range(2)]
            return [SimpleNamespace(correct=bool(i % 2)) for i in range(len(completions))]

    sampled = config(tokenizer, do_sample=True, num_return_sequences=2)
    assert accuracy(policy, tokenizer, tasks, Alternating(), sampled, Accelerator(cpu=True)) == 0.5


def test_random_state_is_left_as_found_and_the_seed_decides(policy, tokenizer, tasks, verifier):
    sampled = config(tokenizer, do_sample=True, num_return_sequences=2)
    few = tasks.select(range(8))

    def measure(seed):
        return accuracy(policy, tokenizer, few, verifier, sampled, Accelerator(cpu=True), seed=seed)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert measure(1) == measure(1)
    assert torch.equal(torch.rand(3), expected)


class TestHeldOutAccuracy:
    @pytest.fixture
    def first_run(self, tmp_path, tasks):
        callback = HeldOutAccuracy(None, tasks, None, tmp_path)
        figures = iter([{"greedy": 0.25}, {"greedy": 0.75}])
        callback._measure = lambda when: next(figures)
        callback.on_train_begin(None, SimpleNamespace(is_world_process_zero=True), None)
        callback.on_train_end(None, None, None)
        assert callback.figures() == {"greedy": {"before": 0.25, "after": 0.75}}
        return tmp_path

    def resumed(self, checkpoint, tasks, folder):
        callback = HeldOutAccuracy(None, tasks, None, folder, checkpoint=str(checkpoint))
        callback._measure = lambda when: {"greedy": 0.875}
        callback.on_train_begin(None, SimpleNamespace(is_world_process_zero=True), None)
        callback.on_train_end(None, None, None)
        return callback.figures()["greedy"]

    def test_resumed_run_keeps_the_figure_of_the_untrained_policy(self, first_run, tasks, tmp_path):
        assert self.resumed(first_run / "checkpoint-2", tasks, first_run) == {"before": 0.25, "after": 0.875}
        elsewhere = tmp_path / "elsewhere"
        assert self.resumed(first_run / "checkpoint-2", tasks, elsewhere) == {"before": 0.25, "after": 0.875}

    def test_figure_of_other_problems_or_none_is_unknown_and_never_that_of_trained_weights(
        self, first_run, tasks, tmp_path
    ):
        fewer = tasks.select(range(3))
        assert self.resumed(first_run / "checkpoint-2", fewer, first_run) == {"before": None, "after": 0.875}
        stray = tmp_path / "stray" / "checkpoint-2"
        assert self.resumed(stray, tasks, tmp_path) == {"before": None, "after": 0.875}
