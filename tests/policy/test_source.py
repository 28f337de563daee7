"""A model's name is an id, or a model's, an adapter's or a run's folder; what is wrong is said before any loading."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_hybrid.errors import InputError
from trl_hybrid.policy import source as source_module
from trl_hybrid.policy.generation import Decoding
from trl_hybrid.policy.source import PolicySource, default_dtype, find_policy, has_bfloat16, weights_digest
from trl_hybrid.policy.transformers_sampler import TransformersSampler


BASE = "data/embedded_policy"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter that changes the answers."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), config)
    model.save_pretrained(folder)
    return folder


def answers(source):
    prompts = [[{"role": "user", "content": f"What is {n} + 58?"}] for n in (3, 47)]
    found = TransformersSampler(source).answer(prompts, [0, 1], Decoding(0, max_completion_length=20))
    return [group[0].text for group in found]


def test_a_folder_with_a_model():
    assert find_policy(BASE) == PolicySource(BASE, BASE)


def test_an_adapter_brings_its_base_and_changes_its_answers(adapter):
    source = find_policy(str(adapter))
    assert (source.base, source.adapter) == (BASE, str(adapter))
    assert answers(source) != answers(find_policy(BASE))


def test_an_adapter_s_own_tokenizer_is_taken(adapter, tmp_path):
    own = shutil.copytree(adapter, tmp_path / "own")
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(own)
    assert TransformersSampler(find_policy(str(own))).tokenizer.chat_template == tokenizer.chat_template
    assert TransformersSampler(find_policy(str(adapter))).tokenizer.chat_template != tokenizer.chat_template


def test_a_tokenizer_without_a_chat_template_is_refused(adapter, tmp_path):
    own = shutil.copytree(BASE, tmp_path / "own")
    (own / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template"):
        TransformersSampler(find_policy(str(own)))


def test_the_digest_follows_the_weights(adapter, tmp_path):
    copied = shutil.copytree(adapter, tmp_path / "copied")
    assert weights_digest(str(copied)) == weights_digest(str(adapter))
    weights = copied / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert weights_digest(str(copied)) != weights_digest(str(adapter))
    assert weights_digest("some/id") is None


def test_a_description_is_the_same_however_the_folder_is_named(adapter, monkeypatch):
    absolute = find_policy(str(Path(BASE).resolve()))
    assert absolute.describe() == find_policy(BASE).describe() == find_policy(f"./{BASE}").describe()
    assert find_policy(str(adapter)).describe()["weights"] == {
        "base_model": weights_digest(BASE), "adapter": weights_digest(str(adapter))
    }  # fmt: skip


def test_an_adapter_s_revision_is_that_of_its_weights(adapter, tmp_path, monkeypatch):
    """Two revisions of one id on the Hub, as they lie in its cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    stored = tmp_path / "models--me--adapter"
    for revision, commit in (("main", "a" * 40), ("v1", "b" * 40)):
        (stored / "refs").mkdir(parents=True, exist_ok=True)
        (stored / "refs" / revision).write_text(commit)
        snapshot = shutil.copytree(adapter, stored / "snapshots" / commit)
    weights = {name: -value for name, value in load_file(snapshot / "adapter_model.safetensors").items()}
    save_file(weights, snapshot / "adapter_model.safetensors")

    def first_weight(source):
        parameters = TransformersSampler(source).model.named_parameters()
        return next(value for name, value in parameters if "lora_A" in name)

    older = find_policy("me/adapter", "v1")
    assert older.describe()["adapter_revision"] == "v1"
    assert torch.equal(first_weight(older), -first_weight(find_policy("me/adapter")))


@pytest.mark.parametrize(("native", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_is_the_default_only_where_the_gpu_itself_computes_in_it(monkeypatch, native, dtype):
    """On a T4 torch says that it is supported, unless it is asked to leave emulation out."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation
    )
    assert has_bfloat16() is native
    monkeypatch.setattr(source_module, "local_device", lambda: torch.device("cuda"))
    assert default_dtype() == dtype
    monkeypatch.setattr(source_module, "local_device", lambda: torch.device("cpu"))
    assert default_dtype() == "float32"


def test_dtype_may_be_the_model_s_own():
    assert TransformersSampler(find_policy(BASE), "auto").model.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no/such-model", "cannot be loaded"),
        ("./nowhere", "does not exist"),
        ("runs/nowhere/checkpoint-4", "does not exist"),
        ("data/addition", "has none. Give a model's folder"),
    ],
)
def test_what_is_no_model_is_said(name, said):
    with pytest.raises(InputError, match=said):
        find_policy(name)


def test_an_unfinished_run_s_newest_checkpoint_is_named(adapter, tmp_path):
    for step in (2, 4):
        checkpoint = shutil.copytree(adapter, tmp_path / f"checkpoint-{step}")
        (checkpoint / "trainer_state.json").write_text("{}")
    with pytest.raises(InputError, match=r"not finished; its newest checkpoint is '.*checkpoint-4'"):
        find_policy(str(tmp_path))
    assert find_policy(str(tmp_path / "checkpoint-4")).base == BASE


def test_an_adapter_whose_base_is_gone_is_said(adapter, tmp_path):
    lost = shutil.copytree(adapter, tmp_path / "lost")
    config = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "no/base"}))
    with pytest.raises(InputError, match=r"The base model of the adapter '.*lost', 'no/base' cannot be loaded"):
        find_policy(str(lost))


@pytest.mark.parametrize("name", ["runs/nothing", "./nothing", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"The folder '{name}' does not exist"):
        find_policy(name)


def test_a_base_that_was_a_folder_where_the_run_began_is_told_from_an_id(adapter, tmp_path, monkeypatch):
    run = shutil.copytree(adapter, tmp_path / "run")
    told = {"settings": {"model": {"model_name_or_path": BASE}}, "versions": {}, "local": [BASE]}
    (run / "settings.json").write_text(json.dumps(told))
    assert find_policy(str(run)).base == BASE
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"was the folder 'data/embedded_policy' where the run began"):
        find_policy("run")
