"""What is asked of vLLM, which is not installed here: a stand-in takes its place at `LLM` and `SamplingParams`."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from trl_hybrid.policy.generation import Completion, Decoding
from trl_hybrid.policy.source import PolicySource, default_dtype
from trl_hybrid.policy.vllm_sampler import VllmSampler


class LLM:
    """Answers with the problem's question, how it was asked and, as vLLM does, a seed of its own for each sample."""

    def __init__(self, **options):
        self.options = options

    def chat(self, messages, params, use_tqdm, lora_request, chat_template_kwargs):
        self.chat_template_kwargs = chat_template_kwargs
        return [
            SimpleNamespace(outputs=[self.output(talk, one, index) for index in range(getattr(one, "n", 1))])
            for talk, one in zip(messages, params, strict=True)
        ]

    def output(self, talk, params, index):
        how = "greedy" if params.temperature == 0 else params.seed + index
        return SimpleNamespace(text=f"{talk[0]['content']} {how}", finish_reason="stop" if index else "length")


@pytest.fixture
def sampler(monkeypatch):
    lora = {"vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": SimpleNamespace(LoRARequest=None)}
    modules = {"vllm": SimpleNamespace(LLM=LLM, SamplingParams=SimpleNamespace), **lora}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return VllmSampler(PolicySource("data/embedded_policy", "data/embedded_policy"))


def ask(sampler, numbers, decoding):
    return sampler.answer([[{"role": "user", "content": f"q{n}"}] for n in numbers], numbers, decoding)


def test_each_problem_gets_its_greedy_answer_and_then_its_samples(sampler):
    first, second = ask(sampler, [0, 1], Decoding(2, chat_template_kwargs={"enable_thinking": False}))
    assert first == [Completion("q0 greedy", True), Completion("q0 0", True), Completion("q0 1", False)]
    assert [answer.text for answer in second] == ["q1 greedy", "q1 2", "q1 3"]
    assert sampler.llm.chat_template_kwargs == {"enable_thinking": False}
    assert ask(sampler, [1], Decoding(2)) == [second]


def test_no_two_samples_share_their_random_numbers(sampler):
    groups = [group for seed in (0, 1) for group in ask(sampler, range(50), Decoding(8, greedy=False, seed=seed))]
    seeds = [answer.text.split()[1] for group in groups for answer in group]
    assert len(set(seeds)) == len(seeds) == 800


def test_weights_are_of_the_type_that_the_rows_name(sampler):
    assert sampler.llm.options["dtype"] == default_dtype()
