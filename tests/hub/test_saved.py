"""A saved model that is empty, broken or another one is found before it is shared."""

import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hub_run import POLICY, save_policy
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_hybrid.errors import InputError
from trl_hybrid.hub import saved as hub_saved
from trl_hybrid.hub.saved import (
    PROBE,
    Trained,
    base_model,
    check_saved_model,
    check_weights,
    is_here,
    lora_values,
    probe_logits,
    trained_logits,
)


def change(folder, edit):
    file = next(folder.glob("*.safetensors"))
    weights = load_file(file)
    edit(weights)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.fixture(params=[True, False], ids=["adapter", "full"])
def saved(request, tmp_path):
    return tmp_path, save_policy(tmp_path, adapter=request.param)


def test_saved_model_is_the_trained_one_and_says_so_of_a_changed_one(saved):
    folder, trained = saved
    check_saved_model(folder, trained)
    check_saved_model(folder)

    def flip(weights):
        weights.update({name: -weight for name, weight in weights.items() if "lora_B" in name or "norm" in name})

    change(folder, flip)
    check_saved_model(folder)
    with pytest.raises(InputError, match=r"logits differ from the trained model's by \d"):
        check_saved_model(folder, trained._replace(lora={}))


@pytest.mark.parametrize("logits", [True, False], ids=["half precision", "quantized"])
def test_adapter_that_learned_nothing_is_found_where_the_logits_do_not_tell(tmp_path, logits):
    trained = save_policy(tmp_path)
    # A rank of 4 for seven projections in each of four layers.
    assert len(trained.lora) == 2 * 7 * 4
    trained = trained._replace(tolerance=10.0) if logits else Trained(None, "auto", 0.0, trained.lora)
    change(tmp_path, lambda weights: weights.update({name: weight.bfloat16() for name, weight in weights.items()}))
    check_saved_model(tmp_path, trained)
    change(tmp_path, lambda weights: [w.zero_() for name, w in weights.items() if "3.mlp.up_proj.lora_B" in name])
    with pytest.raises(InputError, match=r"up_proj.lora_B.weight' in adapter_model.safetensors is not what was"):
        check_saved_model(tmp_path, trained)
    change(tmp_path, lambda weights: [weights.pop(name) for name in list(weights) if "3.mlp.up_proj.lora_B" in name])
    with pytest.raises(InputError, match=r"up_proj.lora_B.weight' is missing"):
        check_saved_model(tmp_path, trained)


def test_adapter_values_may_differ_by_rounding_alone(tmp_path):
    trained = save_policy(tmp_path)._replace(tolerance=10.0)

    def scale(factor):
        change(tmp_path, lambda weights: [w.mul_(factor) for name, w in weights.items() if "3.mlp.up_proj" in name])

    scale(1.005)
    check_saved_model(tmp_path, trained)
    scale(1.02)
    with pytest.raises(InputError, match="is not what was trained"):
        check_saved_model(tmp_path, trained)


@pytest.mark.parametrize("factor", [1.0, 0.99])
def test_logits_of_a_full_precision_model_are_compared_closely(tmp_path, factor):
    """A model that is off by a hundredth passes in half precision, and not in full."""
    trained = save_policy(tmp_path, adapter=False)
    assert trained.tolerance == 1e-3
    change(tmp_path, lambda weights: [w.mul_(factor) for name, w in weights.items() if name == "model.norm.weight"])
    check_saved_model(tmp_path, trained._replace(tolerance=0.1))
    if factor == 1.0:
        check_saved_model(tmp_path, trained)
        return
    with pytest.raises(InputError, match=r"logits differ from the trained model's by 0\.01 "):
        check_saved_model(tmp_path, trained)


def small_trainer(dtype=torch.float32, mixed_precision="no", bf16=False):
    """A trainer as `trained_logits` sees it, with an adapter on the embedded policy."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(POLICY, dtype=dtype)
    lora = LoraConfig(r=4, target_modules=["up_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    return SimpleNamespace(
        model=get_peft_model(base, lora), processing_class=AutoTokenizer.from_pretrained(POLICY),
        args=SimpleNamespace(bf16=bf16, fp16=False),
        accelerator=SimpleNamespace(device="cpu", mixed_precision=mixed_precision),
    )  # fmt: skip


def test_what_is_compared_is_what_the_model_in_memory_holds():
    trainer: Any = small_trainer()
    trained = trained_logits(trainer)
    values = dict(trainer.model.named_parameters())
    assert len(trained.lora) == 2 * 4
    for name, some in trained.lora.items():
        whole = values[name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default.")].flatten()
        assert torch.equal(some, whole[:: max(1, len(whole) // 1000)])
    assert torch.equal(trained.logits, probe_logits(trainer.model, trainer.processing_class))
    trainer.model.base_model.model.is_quantized = True
    quantized = trained_logits(trainer)
    assert quantized[:3] == (None, "auto", 0.0)
    assert quantized.lora.keys() == trained.lora.keys()


def test_about_a_thousand_values_are_taken_of_weights_that_zero3_gathers_for_it(monkeypatch):
    deepspeed = pytest.importorskip("deepspeed")
    gathered = []
    monkeypatch.setattr(
        deepspeed.zero, "GatheredParameters", lambda weights: gathered.extend(weights) or nullcontext()
    )
    sharded, whole = torch.nn.Parameter(torch.arange(2000.0)), torch.nn.Parameter(torch.arange(999.0))
    vars(sharded)["ds_id"] = 0
    names = [("layer.lora_A.default.weight", sharded), ("layer.lora_B.default.weight", whole), ("bias", whole)]
    values = lora_values(SimpleNamespace(named_parameters=lambda: names))
    assert len(gathered) == 1
    assert gathered[0] is sharded
    assert values["layer.lora_A.weight"].tolist() == list(range(0, 2000, 2))
    assert values["layer.lora_B.weight"].tolist() == list(range(999))


def test_the_probe_ends_where_an_answer_begins():
    trainer: Any = small_trainer(dtype=torch.bfloat16)
    trainer.processing_class.chat_template = "{{ messages[0].content }}{% if add_generation_prompt %} = {% endif %}"
    tokens = trainer.processing_class.apply_chat_template(PROBE, add_generation_prompt=True, return_dict=True)
    trained = trained_logits(trainer)
    assert len(trained.logits) == len(tokens["input_ids"])
    assert trained.dtype is torch.bfloat16


def test_a_saved_model_is_loaded_in_the_trained_types_from_safetensors_alone(saved, monkeypatch):
    folder, trained = saved
    asked = []

    def recorded(loader):
        def from_pretrained(name, **settings):
            asked.append((loader.__name__, settings))
            return loader.from_pretrained(name, **settings)

        return SimpleNamespace(from_pretrained=from_pretrained)

    for name in ("AutoPeftModelForCausalLM", "AutoModelForCausalLM", "AutoTokenizer"):
        monkeypatch.setattr(hub_saved, name, recorded(getattr(hub_saved, name)))
    check_saved_model(folder, trained._replace(tolerance=0.0))  # the same to the bit
    check_saved_model(folder, trust_remote_code=True)
    loader = "AutoPeftModelForCausalLM" if (folder / "adapter_config.json").exists() else "AutoModelForCausalLM"
    assert asked == [
        (loader, {"dtype": torch.float32, "trust_remote_code": False, "use_safetensors": True}),
        ("AutoTokenizer", {"trust_remote_code": False}),
        (loader, {"dtype": "auto", "trust_remote_code": True, "use_safetensors": True}),
        ("AutoTokenizer", {"trust_remote_code": True}),
    ]


def test_values_below_the_smallest_step_of_float16_count_as_nothing(tmp_path):
    trained = save_policy(tmp_path)
    name = next(name for name in trained.lora if "lora_B" in name)
    change(tmp_path, lambda weights: weights[name].zero_())
    check_weights(tmp_path, {name: torch.full_like(trained.lora[name], 6e-8)})
    with pytest.raises(
        InputError, match=r"is not what was trained\. Nothing.* newest one, or train again\.$"
    ) as error:
        check_weights(tmp_path, {name: torch.full_like(trained.lora[name], 6e-7)})
    assert f"saved in {str(tmp_path)!r} cannot" in str(error.value)
    assert "The checkpoints beside it are as they were: take" in str(error.value)


@pytest.mark.parametrize(
    ("how", "tolerance"),
    [
        ({}, 1e-3),
        ({"dtype": torch.bfloat16}, 0.1),
        # As under `accelerate launch --mixed_precision bf16`, of which the trainer's arguments know nothing.
        ({"mixed_precision": "bf16"}, 0.1),
        ({"mixed_precision": "fp16"}, 0.1),
    ],
)
def test_half_precision_of_the_weights_or_the_launch_widens_the_tolerance(how, tolerance):
    assert trained_logits(small_trainer(**how)).tolerance == tolerance


def test_empty_tensors_as_zero3_has_saved_them(saved):
    folder, trained = saved
    change(folder, lambda weights: weights.update({name: torch.empty(0) for name in weights}))
    with pytest.raises(InputError, match=r"' in (adapter_)?model.safetensors is empty. Nothing was pushed"):
        check_saved_model(folder, trained)


def test_numbers_that_are_not_finite(saved):
    folder, trained = saved
    change(folder, lambda weights: next(iter(weights.values())).view(-1)[:1].fill_(torch.nan))
    with pytest.raises(InputError, match="is not finite"):
        check_saved_model(folder, trained)


def test_missing_weights_tokenizer_and_other_vocabulary(saved):
    folder, trained = saved
    with pytest.raises(InputError, match="logits have the shape"):
        check_saved_model(folder, Trained(trained.logits[:-1], trained.dtype, trained.tolerance))
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="does not load"):
        check_saved_model(folder)
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(InputError, match="there are no weights in it"):
        check_saved_model(folder)


def test_base_model_of_an_adapter(tmp_path):
    assert base_model(tmp_path) is None
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": POLICY, "revision": "v1"}))
    assert base_model(tmp_path) == (POLICY, "v1")
    assert is_here(POLICY)
    assert not is_here("me/never-downloaded")
    assert not is_here("runs/sft/merged")  # of a cold start, from another folder
    assert not is_here(f"./{POLICY}-moved")
