"""What is asked of vLLM, where it is not installed: a stand-in takes its place at `LLM` and `SamplingParams`.

`tests/commands/test_eval_vllm.py` asks a real one.
"""

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from peft import IA3Config, LoraConfig
from transformers import AutoTokenizer

from trl_hybrid.errors import InputError
from trl_hybrid.policy import vllm_sampler
from trl_hybrid.policy.generation import Completion, Decoding
from trl_hybrid.policy.source import PolicySource, default_dtype
from trl_hybrid.policy.vllm_sampler import VllmSampler, asked_length, check_free_memory


EMBEDDED = PolicySource("data/embedded_policy", "data/embedded_policy")


class LLM:
    """Answers with the problem's question, how it was asked and, as vLLM does, a seed of its own for each sample."""

    def __init__(self, **options):
        if options["max_model_len"] == 1_000_000:
            raise ValueError("max_model_len is greater than the derived one")
        self.options, self.running = options, True
        self.tokenizer = AutoTokenizer.from_pretrained(options["tokenizer"])
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=options["max_model_len"] or 512),
            engine_core=SimpleNamespace(shutdown=lambda: vars(self).update(running=False)),
        )

    def generate(self, prompts, params, use_tqdm, lora_request):
        return [
            SimpleNamespace(outputs=[self.output(prompt, one, index) for index in range(getattr(one, "n", 1))])
            for prompt, one in zip(prompts, params, strict=True)
        ]

    def output(self, prompt, params, index):
        question = re.search(r"q\d+", self.tokenizer.decode(prompt["prompt_token_ids"]))[0]
        how = "greedy" if params.temperature == 0 else params.seed + index
        return SimpleNamespace(text=f"{question} {how}", finish_reason="stop" if index else "length")


@pytest.fixture
def stand_in(monkeypatch):
    lora = {
        "vllm.lora": ModuleType("vllm.lora"),
        "vllm.lora.request": SimpleNamespace(LoRARequest=lambda *parts: parts),
    }
    modules = {"vllm": SimpleNamespace(LLM=LLM, SamplingParams=SimpleNamespace), **lora}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def sampler(stand_in):
    return VllmSampler(EMBEDDED)


def question(text):
    return [{"role": "user", "content": text}]


def ask(sampler, numbers, decoding):
    return sampler.answer([question(f"q{n}") for n in numbers], numbers, decoding)


def test_each_problem_gets_its_greedy_answer_and_then_its_samples(sampler):
    first, second = ask(sampler, [0, 1], Decoding(2))
    assert first == [Completion("q0 greedy", True), Completion("q0 0", True), Completion("q0 1", False)]
    assert [answer.text for answer in second] == ["q1 greedy", "q1 2", "q1 3"]
    assert ask(sampler, [1], Decoding(2)) == [second]


def test_no_two_samples_share_their_random_numbers(sampler):
    groups = [group for seed in (0, 1) for group in ask(sampler, range(50), Decoding(8, greedy=False, seed=seed))]
    seeds = [answer.text.split()[1] for group in groups for answer in group]
    assert len(set(seeds)) == len(seeds) == 800


def test_weights_are_of_the_type_that_the_rows_name(sampler):
    assert sampler.llm.options["dtype"] == default_dtype()


def test_the_chat_template_gets_its_arguments(sampler):
    sampler.tokenizer.chat_template = "{% if enable_thinking %}q1{% else %}q2{% endif %}"
    for thinks, asked in ((True, "q1 greedy"), (False, "q2 greedy")):
        decoding = Decoding(0, chat_template_kwargs={"enable_thinking": thinks})
        assert sampler.answer([question("?")], [0], decoding) == [[Completion(asked, True)]]


def test_a_prompt_that_fills_the_context_is_answered_with_nothing_and_the_others_are_answered(stand_in):
    long, short = question("q1" + " 7" * 40), question("q2")
    sampler = VllmSampler(EMBEDDED, max_model_length=40)
    nothing, answered = sampler.answer([long, short], [0, 1], Decoding(1))
    assert nothing == [Completion("", True)] * 2
    assert [answer.text for answer in answered] == ["q2 greedy", "q2 1"]


def test_the_engine_ends_with_its_block(stand_in):
    with VllmSampler(EMBEDDED) as sampler:
        engine = sampler.llm
        assert engine.running
    assert not engine.running


def test_a_model_that_vllm_refuses_is_refused_with_its_reason(stand_in):
    with pytest.raises(
        InputError, match=r"does not start with 'data/embedded_policy': max_model_len is greater.*trans"
    ):
        VllmSampler(EMBEDDED, max_model_length=1_000_000)


@pytest.mark.usefixtures("stand_in")
def test_an_adapter_is_loaded_with_the_smallest_rank_that_holds_it(tmp_path):
    LoraConfig(r=9).save_pretrained(tmp_path)
    sampler = VllmSampler(PolicySource(str(tmp_path), EMBEDDED.base, str(tmp_path)))
    assert sampler.llm.options["enable_lora"]
    assert sampler.llm.options["max_lora_rank"] == 16
    assert sampler.lora_request == ("adapter", 1, str(tmp_path))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LoraConfig(use_dora=True), "without use_dora=True"),
        (LoraConfig(modules_to_save=["lm_head"]), r"without modules_to_save=\['lm_head'\]"),
        (LoraConfig(bias="all"), "without bias='all'"),
        (LoraConfig(r=513), "of rank 512 at most.* has rank 513"),
        (IA3Config(), "has rank None"),
    ],
)
def test_an_adapter_that_vllm_would_not_load_is_refused_before_it_starts(tmp_path, config, said):
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=said):
        VllmSampler(PolicySource(str(tmp_path), EMBEDDED.base, str(tmp_path)))


def test_the_context_is_the_longest_prompt_with_its_answer_within_the_model_s(tokenizer):
    prompts = [question("What is 7 + 8?"), question("What is 17 + 25?")]
    longest = len(tokenizer.apply_chat_template(prompts[1], add_generation_prompt=True)["input_ids"])
    assert asked_length(EMBEDDED, prompts, Decoding(max_completion_length=40)) == longest + 40 < 60
    assert asked_length(EMBEDDED, prompts, Decoding(max_completion_length=1000)) == 512


def test_a_share_that_is_not_free_is_refused_before_vllm_starts(monkeypatch):
    check_free_memory(0.9)  # on a CPU there is nothing to ask
    monkeypatch.setattr(vllm_sampler, "local_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30_000_000_000, 80_000_000_000))
    check_free_memory(0.37)
    with pytest.raises(InputError, match=r"0.5 of 80.0 GB must be free, and 30.0 GB are. Set it to at most 0.37"):
        check_free_memory(0.5)
