import json
import logging
import shutil
from typing import get_args

import pytest
import torch
from accelerate import PartialState
from transformers import BitsAndBytesConfig

from trl_hybrid.recipe.options import JudgeArguments, reward_model_settings
from trl_hybrid.reward_model import RewardModel, scorer
from trl_hybrid.reward_model import placement as placement_module
from trl_hybrid.reward_model.footprint import Need, measure_footprint
from trl_hybrid.reward_model.loading import Source, load_config
from trl_hybrid.reward_model.placement import PlacementSetting, body_dtype, local_device, resolve_placement


def test_auto_is_the_cpu_where_there_is_no_gpu(qwen2, caplog):
    with caplog.at_level(logging.INFO):
        assert RewardModel(qwen2.path, device="cpu").placement == "cpu"
    assert "Reward model placement: cpu: there is no GPU" in caplog.text


@pytest.mark.parametrize("placement", ["resident", "streamed", "cpu"])
def test_every_placement_gives_the_same_scores(qwen2, placement):
    scorer = RewardModel(qwen2.path, placement=placement, device="cpu")
    assert scorer.placement == placement
    assert scorer.compute_batch_reward("Q", ["a", "bcd"]) == pytest.approx(
        [qwen2.score("Q", "a"), qwen2.score("Q", "bcd")], abs=1e-5
    )


def test_an_unknown_placement_is_refused_with_the_known_ones(qwen2):
    with pytest.raises(ValueError, match="one of auto, resident, streamed, zero3, cpu, server, but got 'gpu'"):
        RewardModel(qwen2.path, placement="gpu")


@pytest.fixture
def nothing_loaded(monkeypatch):
    """What is refused is refused before the weights are loaded."""
    monkeypatch.setattr(scorer, "load_backend", lambda *given: pytest.fail("the weights were loaded"))


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize("placement", ["streamed", "zero3", "cpu"])
def test_quantized_weights_do_not_move(qwen2, placement):
    with pytest.raises(ValueError, match="A quantized reward model stays on its GPU"):
        RewardModel(qwen2.path, placement=placement, quantization_config=BitsAndBytesConfig(load_in_8bit=True))


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize("placement", ["streamed", "zero3", "cpu"])
def test_a_checkpoint_of_quantized_weights_does_not_move_either(qwen2, tmp_path, placement):
    """Streamed, its packed integers would be copied as if they were weights."""
    shutil.copytree(qwen2.path, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"stays on its GPU, but its placement is '{placement}'"):
        RewardModel(str(tmp_path), placement=placement, device="cpu")


@pytest.mark.usefixtures("nothing_loaded")
def test_quantized_weights_are_refused_on_a_cpu_whatever_the_placement(qwen2):
    with pytest.raises(ValueError, match="stays on its GPU, but its placement is 'cpu'"):
        RewardModel(qwen2.path, device="cpu", quantization_config=BitsAndBytesConfig(load_in_8bit=True))


def test_quantized_weights_are_resident_where_nothing_else_is_said(qwen2, monkeypatch):
    """What `auto` counts are the weights as they were before."""
    chosen = []
    monkeypatch.setattr(scorer, "load_backend", lambda source, config, options, samples: chosen.append(options))
    monkeypatch.setattr(RewardModel, "preflight", lambda model: None)
    RewardModel(qwen2.path, device="cuda", quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    assert [options.placement for options in chosen] == ["resident"]


def test_quantization_goes_to_transformers_as_it_is(qwen2):
    with pytest.raises(ImportError, match="bitsandbytes"):
        RewardModel(qwen2.path, placement="resident", quantization_config=BitsAndBytesConfig(load_in_4bit=True))


def test_the_command_line_offers_every_placement():
    assert JudgeArguments.__dataclass_fields__["reward_model_placement"].metadata["choices"] == list(
        get_args(PlacementSetting)
    )


def test_only_settings_that_were_changed_reach_the_reward_model():
    assert reward_model_settings(JudgeArguments()) == {}
    changed = JudgeArguments("my/rm", reward_model_placement="zero3", reward_model_token_budget=512)
    assert reward_model_settings(changed) == {"placement": "zero3", "token_budget": 512}
    quantized = reward_model_settings(JudgeArguments(reward_model_load_in_4bit=True))
    assert quantized["quantization_config"].load_in_4bit
    assert quantized["quantization_config"].llm_int8_skip_modules == ["score"]


def test_auto_dtype_is_the_checkpoints():
    assert body_dtype("auto", torch.device("cpu"), torch.float16) == torch.float16
    assert body_dtype("auto", torch.device("cpu")) == torch.float32
    assert body_dtype(None, torch.device("cuda")) == torch.bfloat16


def test_a_dtype_is_one_of_torch_s_or_its_name():
    cpu = torch.device("cpu")
    assert body_dtype(torch.float16, cpu) == body_dtype("float16", cpu) == torch.float16
    for wrong in ("bf16", "nn", "int8", torch.int8):
        with pytest.raises(ValueError, match="must be a floating-point dtype"):
            body_dtype(wrong, cpu)


@pytest.fixture
def gpus(monkeypatch):
    """A machine with GPUs, before the launch's state is made."""
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    for name in ("LOCAL_RANK", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("gpus")
def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    assert local_device() == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device() == torch.device("cuda:3")


@pytest.mark.usefixtures("gpus")
def test_a_process_is_on_the_cpu_where_the_launch_says_so_or_no_gpu_is_to_be_had(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)  # torch can do CUDA, the machine cannot
    assert local_device() == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert local_device() == torch.device("cpu")


@pytest.mark.usefixtures("gpus")
def test_the_launch_s_own_device_counts_once_it_is_known(monkeypatch):
    monkeypatch.setattr(PartialState, "_shared_state", {"device": torch.device("cuda:5")})
    monkeypatch.setattr(PartialState, "__init__", lambda state: setattr(state, "__dict__", state._shared_state))
    assert local_device() == torch.device("cuda:5")


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize("placement", ["auto", "cpu", "streamed"])
def test_weights_that_host_memory_cannot_hold_are_refused(qwen2, monkeypatch, placement):
    monkeypatch.setattr(placement_module, "free_host_bytes", lambda: 10_000)
    with pytest.raises(ValueError, match=r"would need|needs"):
        RewardModel(qwen2.path, device="cpu", placement=placement)


def test_a_deepspeed_configuration_of_one_s_own_may_put_the_weights_elsewhere(qwen2, monkeypatch):
    config = load_config(Source(qwen2.path))
    monkeypatch.setattr(placement_module, "free_host_bytes", lambda: 10_000)
    with pytest.raises(ValueError, match=r"'zero3' needs .* of pinned host memory"):
        resolve_placement("zero3", torch.device("cuda"), config, None)
    own = {"zero_optimization": {"stage": 3}}
    assert resolve_placement("zero3", torch.device("cuda"), config, None, deepspeed_config=own) == "zero3"


def test_the_processes_of_a_machine_share_its_memory(qwen2, monkeypatch):
    whole = measure_footprint(load_config(Source(qwen2.path))).host_bytes("cpu")
    monkeypatch.setattr(placement_module, "free_host_bytes", lambda: 2 * whole)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert RewardModel(qwen2.path, device="cpu").placement == "cpu"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="No placement of the reward model fits"):
        RewardModel(qwen2.path, device="cpu")


def test_auto_counts_the_type_that_the_weights_will_have_on_the_cpu(qwen2, monkeypatch):
    """Where no type is asked for, bf16 on the GPU is fp32 on the CPU."""
    chosen = []
    config = load_config(Source(qwen2.path))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    monkeypatch.setattr(scorer, "load_backend", lambda source, config, options, samples: chosen.append(options))
    monkeypatch.setattr(RewardModel, "preflight", lambda model: None)
    full = measure_footprint(config).host_bytes("cpu")
    monkeypatch.setattr(placement_module, "free_host_bytes", lambda: full - 1)
    with pytest.raises(ValueError, match="No placement"):
        RewardModel(qwen2.path, device="cuda")
    RewardModel(qwen2.path, device="cuda", dtype="bfloat16")
    assert [options.placement for options in chosen] == ["cpu"]


def resolved(qwen2, monkeypatch, free, **settings):
    """What `auto` chooses where so much is free on a GPU, of which three times as much is built in."""
    monkeypatch.setattr(placement_module, "free_host_bytes", lambda: 10**12)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {"cuda:1": (free, 3 * free)}[str(device)])
    return resolve_placement("auto", torch.device("cuda:1"), load_config(Source(qwen2.path)), None, **settings)


def test_auto_asks_its_own_gpu_for_what_is_free_and_says_why(qwen2, monkeypatch, caplog):
    found = measure_footprint(load_config(Source(qwen2.path)))
    needed = found.on_gpu("resident", 100).total
    with caplog.at_level(logging.WARNING):
        assert resolved(qwen2, monkeypatch, needed, token_budget=100) == "resident"
        assert caplog.messages[-1].startswith("Reward model placement: resident: needs ")
        assert resolved(qwen2, monkeypatch, needed - 1, token_budget=100) != "resident"
    assert resolved(qwen2, monkeypatch, needed, token_budget=101) != "resident"
    # Training's own: a byte that lasts takes room, one that passes is there for scoring in turn.
    assert resolved(qwen2, monkeypatch, needed, token_budget=100, reserved=1) != "resident"
    assert resolved(qwen2, monkeypatch, needed + 1, token_budget=100, reserved=Need(1, 1)) == "resident"
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        resolve_placement("auto", torch.device("cpu"), load_config(Source(qwen2.path)), None)
    assert not caplog.messages


def test_a_resident_model_is_not_measured_and_others_by_their_own_code_if_that_may_run(qwen2, monkeypatch):
    asked = []

    def measured(config, dtype, trust_remote_code):
        asked.append(trust_remote_code)
        return measure_footprint(config, dtype)

    monkeypatch.setattr(placement_module, "measure_footprint", measured)
    config = load_config(Source(qwen2.path))
    for placement, more in (("resident", {}), ("cpu", {}), ("cpu", {"trust_remote_code": True})):
        assert resolve_placement(placement, torch.device("cpu"), config, None, **more) == placement
    assert asked == [False, True]


def test_all_processes_share_what_zero3_holds(qwen2, monkeypatch):
    config = load_config(Source(qwen2.path))
    shared = measure_footprint(config).host_bytes("zero3", processes=4)
    monkeypatch.setattr(placement_module, "free_host_bytes", lambda: shared)
    with pytest.raises(ValueError, match="'zero3' needs"):
        resolve_placement("zero3", torch.device("cuda"), config, None)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert resolve_placement("zero3", torch.device("cuda"), config, None) == "zero3"
