import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
from transformers.integrations import deepspeed

from trl_hybrid.reward_model import RewardModel, RewardModelNotFoundError, loading
from trl_hybrid.reward_model.loading import (
    Source,
    load_config,
    load_model,
    load_tokenizer,
    split_model,
    whole_weights,
)


class PolicyUnderZero3:
    """Stands for the policy's DeepSpeed settings: whoever heeds them asks for `config`, which fails here."""

    def is_zero3(self):
        return True


def test_a_causal_language_model_is_refused(causal_folder):
    with pytest.raises(ValueError, match="causal language model \\(LlamaForCausalLM\\)"):
        RewardModel(str(causal_folder))


def test_a_head_that_is_not_in_the_checkpoint_is_refused(causal_folder, tmp_path):
    folder = shutil.copytree(causal_folder, tmp_path / "disguised")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "score"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"would be random: score\.weight"):
        RewardModel(str(folder))


def test_two_labels_are_refused(save_model):
    with pytest.raises(ValueError, match="num_labels=2"):
        RewardModel(save_model(num_labels=2).path)


def test_a_tokenizer_without_template_is_refused(save_model):
    with pytest.raises(ValueError, match="needs a chat template"):
        RewardModel(save_model(template="none").path)


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(RewardModelNotFoundError, match="'/no/such/folder' looks like a local folder"):
        RewardModel("/no/such/folder")


def test_a_model_that_cannot_be_had_is_named_with_the_way_on(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RewardModelNotFoundError) as failure:
        RewardModel("nobody/nothing-RM", revision="v1")
    message = str(failure.value)
    assert message.startswith("The reward model 'nobody/nothing-RM' at revision 'v1' could not be loaded")
    assert "hf download nobody/nothing-RM" in message
    assert isinstance(failure.value, OSError)


@pytest.fixture
def hollow(qwen2, tmp_path):
    """A reward model's folder without its weights."""
    folder = shutil.copytree(qwen2.path, tmp_path / "hollow")
    (folder / "model.safetensors").unlink()
    return folder


def test_a_folder_without_configuration_is_named(tmp_path):
    with pytest.raises(RewardModelNotFoundError, match=r"holds a config\.json"):
        RewardModel(str(tmp_path))


def test_missing_weights_are_named(hollow):
    with pytest.raises(RewardModelNotFoundError, match=r"Looked for its weights \(safetensors\) in the folder"):
        RewardModel(str(hollow))


def test_weights_outside_safetensors_are_not_read(qwen2, hollow):
    torch.save(qwen2.model.state_dict(), hollow / "pytorch_model.bin")
    with pytest.raises(RewardModelNotFoundError, match="safetensors"):
        RewardModel(str(hollow))


def test_policys_zero3_settings_neither_shard_it_nor_get_lost(qwen2):
    settings = PolicyUnderZero3()
    deepspeed.set_hf_deepspeed_config(settings)
    try:
        scorer = RewardModel(qwen2.path)
        assert deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()
    assert scorer.compute_reward("Q", "A") == pytest.approx(qwen2.score("Q", "A"), abs=1e-5)


def test_policys_settings_survive_a_failed_load(hollow, monkeypatch):
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    settings = PolicyUnderZero3()
    deepspeed.set_hf_deepspeed_config(settings)
    try:
        with pytest.raises(RewardModelNotFoundError):
            load_model(Source(str(hollow)), torch.float32, torch.device("cpu"))
        assert deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true"


def test_a_relative_folder_is_found(qwen2, monkeypatch):
    monkeypatch.chdir(Path(qwen2.path).parent)
    assert RewardModel(f"./{Path(qwen2.path).name}").compute_reward("Q", "A") == pytest.approx(
        qwen2.score("Q", "A"), abs=1e-5
    )


def test_fsdp_does_not_empty_what_is_loaded_and_finds_its_setting_again(monkeypatch):
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    with whole_weights():
        assert "FSDP_CPU_RAM_EFFICIENT_LOADING" not in os.environ
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true"


@pytest.mark.parametrize("name", ["./not-there", "../not-there", "~/not-there"])
def test_a_name_that_can_only_be_a_folder_is_not_looked_for_on_the_hub(name):
    with pytest.raises(RewardModelNotFoundError, match=f"'{name}' looks like a local folder"):
        load_config(Source(name))


@pytest.mark.parametrize(("load", "part"), [(load_config, "its configuration"), (load_tokenizer, "its tokenizer")])
def test_the_part_that_cannot_be_had_is_named(monkeypatch, load, part):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RewardModelNotFoundError, match=f"at revision 'v1' could not .* Looked for {part} in the Hub"):
        load(Source("nobody/nothing-RM", "v1"))


def test_revision_and_remote_code_reach_every_loader_and_type_and_device_the_weights(qwen2, monkeypatch):
    asked = {}

    def recorded(name):
        loader = getattr(loading, name)

        def from_pretrained(path, **settings):
            asked[name] = settings
            known = {key: settings[key] for key in ("dtype", "output_loading_info") if key in settings}
            return loader.from_pretrained(path, **known)

        monkeypatch.setattr(loading, name, SimpleNamespace(from_pretrained=from_pretrained))

    for name in ("AutoConfig", "AutoTokenizer", "AutoModelForSequenceClassification"):
        recorded(name)
    source, own = Source(qwen2.path, "v1", trust_remote_code=True), {"revision": "v1", "trust_remote_code": True}
    load_config(source)
    load_tokenizer(source)
    model = load_model(source, torch.bfloat16, torch.device("cuda:1"), quantization_config="as given")
    assert asked.pop("AutoModelForSequenceClassification") == {
        **own, "dtype": torch.bfloat16, "use_safetensors": True, "output_loading_info": True,
        "device_map": {"": torch.device("cuda:1")}, "quantization_config": "as given",
    }  # fmt: skip
    assert asked == {"AutoConfig": own, "AutoTokenizer": own}
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    load_model(source, "float32", torch.device("cpu"))
    assert not {"device_map", "quantization_config"} & asked["AutoModelForSequenceClassification"].keys()


def test_a_head_is_linear_and_has_one_output_and_the_body_is_another_module(qwen2):
    model = load_model(Source(qwen2.path), "float32", torch.device("cpu"))
    body, head = split_model(model)
    assert (body, head) == (model.base_model, model.score)
    for other in (torch.nn.Linear(head.in_features, 2), torch.nn.Identity(), None):
        model.score = other
        with pytest.raises(ValueError, match="a linear head `score` with one output"):
            split_model(model)
    del model.score
    with pytest.raises(ValueError, match="has None"):
        split_model(model)
    model.score, model.base_model_prefix = head, "no_such_part"
    with pytest.raises(ValueError, match="names none"):
        split_model(model)
