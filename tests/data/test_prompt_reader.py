"""Prompts are rendered and counted as the policy reads them, without its weights."""

import json
import shutil

import pytest

from trl_hybrid.data.prompt_reader import PromptReader
from trl_hybrid.errors import InputError


POLICY = "data/embedded_policy"
PROMPT = [{"role": "user", "content": "What is 12 + 30?"}]


def copy_of_policy(tmp_path, without=(), **config):
    """Copy the policy without its weights: nothing here may need them."""
    ignored = shutil.ignore_patterns("*.safetensors", *without)
    shutil.copytree(POLICY, tmp_path / "policy", ignore=ignored)
    path = tmp_path / "policy" / "config.json"
    values = {**json.loads(path.read_text()), **config}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
    return tmp_path / "policy"


def test_reads_as_the_policy_does(tmp_path):
    reader = PromptReader(str(copy_of_policy(tmp_path)), max_completion_length=40)
    text = "<|user|>\nWhat is 12 + 30?</s>\n<|assistant|>\n"
    assert reader.render(PROMPT) == text
    expected = len(reader.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert reader.lengths([PROMPT, PROMPT * 2, PROMPT])[::2] == [expected, expected]
    assert reader.lengths([]) == []


def test_room_is_the_context_less_the_completion():
    assert PromptReader(POLICY, 40).room == 512 - 40
    assert PromptReader(POLICY, None).room == 512
    assert PromptReader(POLICY, 40, context=100).room == 60


def test_policy_without_a_longest_context(tmp_path):
    """Mamba's state has no positions."""
    folder = copy_of_policy(tmp_path, model_type="mamba", max_position_embeddings=None)
    assert PromptReader(str(folder), 40).room is None


def test_completion_as_long_as_the_context():
    with pytest.raises(InputError, match=r"max_completion_length must leave room .* 512 tokens .*got 512"):
        PromptReader(POLICY, 512)


def test_policy_without_a_chat_template(tmp_path):
    with pytest.raises(InputError, match="needs a chat template"):
        PromptReader(str(copy_of_policy(tmp_path, without=["chat_template.jinja"])), 40)


def test_template_that_takes_no_system_message(tmp_path):
    folder = copy_of_policy(tmp_path)
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    template = folder / "chat_template.jinja"
    template.write_text(refuse + template.read_text())
    reader = PromptReader(str(folder), 40)
    assert reader.lengths([PROMPT])
    with pytest.raises(InputError, match=r"refuses the prompts: no system role.*--system_prompt ''"):
        reader.lengths([[{"role": "system", "content": "s"}, *PROMPT]])
