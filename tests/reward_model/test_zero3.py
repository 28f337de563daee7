"""ZeRO-3 in real processes: for the policy alone, and for the reward model alone."""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from two_processes import DATA_PARALLEL, launch

from trl_hybrid.reward_model import RewardModel, zero3
from trl_hybrid.reward_model.footprint import measure_footprint
from trl_hybrid.reward_model.loading import Source, load_config
from trl_hybrid.reward_model.zero3 import CONFIG, OLDEST_DEEPSPEED, read_config, whole_head
from trl_hybrid.shipped import shipped_folder


PROGRAM = """
import json, sys
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainingArguments
reward_model, policy, folder, placement = sys.argv[1:]
arguments = TrainingArguments(folder, use_cpu=True, bf16=False, report_to="none")
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.training.leaving import leave_together

scorer = RewardModel(reward_model, placement=placement, token_budget=60, cache_size=0)
# The first process has four rows, the second one, then none.
rows = {0: [["a", "bcd", "x" * 90, "x" * 40], ["e", "f"]], 1: [["g"], []]}[arguments.process_index]
scores = [scorer.compute_batch_reward("Q", completions) for completions in rows]
body = scorer.backend.forward.body
report = {
    "scores": scores,
    "forwards": getattr(scorer.backend, "forwards", None),
    "sharded": [hasattr(p, "ds_id") for p in body.parameters()],
    "places": sorted({str(p.ds_tensor.device) for p in body.parameters() if hasattr(p, "ds_id")}),
    "share": sum(p.ds_tensor.numel() for p in body.parameters() if hasattr(p, "ds_id")),
    "pieces": sorted(p.ds_tensor.numel() for p in body.parameters() if hasattr(p, "ds_id")),
    "whole": sum(getattr(p, "ds_numel", p.numel()) for p in body.parameters()),
    "plain": AutoModelForSequenceClassification.from_pretrained(reward_model).score.weight.numel(),
    "policy": [hasattr(p, "ds_id") for p in AutoModelForCausalLM.from_pretrained(policy).parameters()],
}
with open(f"{folder}/{arguments.process_index}.json", "w") as file:
    json.dump(report, file)
leave_together()
"""
UNDER_ZERO3 = {
    **DATA_PARALLEL,
    "distributed_type": "DEEPSPEED",
    "deepspeed_config": {"zero_stage": 3, "offload_param_device": "cpu", "zero3_init_flag": True},
}
SECOND_ROWS = [["g"], []]
FIRST_ROWS = [["a", "bcd", "x" * 90, "x" * 40], ["e", "f"]]


def reports_of(folder, settings, *models, placement):
    """Run the program in two processes and return what each reports."""
    (folder / "program.py").write_text(PROGRAM)
    launch(folder, settings, folder / "program.py", *models, folder, placement)
    return [json.loads((folder / f"{process}.json").read_text()) for process in range(2)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_process_scores_with_whole_weights_while_the_policy_is_under_zero3(qwen2, causal_folder, tmp_path):
    pytest.importorskip("deepspeed")
    reports = reports_of(tmp_path, UNDER_ZERO3, qwen2.path, causal_folder, placement="resident")
    for report, rows in zip(reports, (FIRST_ROWS, SECOND_ROWS), strict=True):
        assert report["scores"] == [
            pytest.approx([qwen2.score("Q", completion) for completion in completions], abs=1e-5)
            for completions in rows
        ]
        assert not any(report["sharded"])
        assert report["plain"] == 0  # what from_pretrained leaves of a model while the policy's settings are alive
        assert all(report["policy"])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("settings", [DATA_PARALLEL, UNDER_ZERO3], ids=["policy whole", "policy under zero3"])
def test_the_reward_model_alone_is_sharded_on_the_cpu_and_all_processes_run_as_many_forwards(
    qwen2, causal_folder, tmp_path, settings
):
    pytest.importorskip("deepspeed")
    reports = reports_of(tmp_path, settings, qwen2.path, causal_folder, placement="zero3")
    config = load_config(Source(qwen2.path))
    weights = list(measure_footprint(config, torch.float32).tensor_elements)
    weights.remove(config.hidden_size)  # the head's: all pieces but its own are the body's
    for report, rows in zip(reports, (FIRST_ROWS, SECOND_ROWS), strict=True):
        assert report["scores"] == [
            pytest.approx([qwen2.score("Q", completion) for completion in completions], abs=1e-5)
            for completions in rows
        ]
        assert all(report["sharded"])
        assert report["places"] == ["cpu"]
        # What the estimate of host memory rounds up: each weight's own half.
        assert report["pieces"] == sorted(-(-elements // 2) for elements in weights)
        assert report["share"] == pytest.approx(report["whole"] / 2, rel=0.01)
        # The policy's own settings are back: whole in one launch, sharded in the other.
        assert set(report["policy"]) == {settings is UNDER_ZERO3}
    assert reports[0]["forwards"] == reports[1]["forwards"] > 4


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_under_a_plain_launch_it_makes_a_process_group_of_its_own(qwen2):
    pytest.importorskip("deepspeed")
    program = (
        "import sys; from trl_hybrid.reward_model import RewardModel;"
        "scorer = RewardModel(sys.argv[1], placement='zero3');"
        "print('scores', *scorer.compute_batch_reward('Q', ['a', 'bcd']))"
    )
    result = subprocess.run([sys.executable, "-c", program, qwen2.path], capture_output=True, text=True, check=True)
    line = next(line for line in result.stdout.splitlines() if line.startswith("scores"))
    expected = [qwen2.score("Q", "a"), qwen2.score("Q", "bcd")]
    assert list(map(float, line.split()[1:])) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_the_score_head_is_fp32_whatever_the_body_is(bias):
    pytest.importorskip("deepspeed")
    torch.manual_seed(0)
    own = torch.nn.Linear(6, 1, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    head = whole_head(own, torch.device("cpu"))
    assert {parameter.dtype for parameter in head.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in head.parameters())
    for gathered, parameter in zip(head.parameters(), own.parameters(), strict=True):
        assert torch.equal(gathered, parameter.float())


def test_processes_that_have_not_met_are_told_what_to_make_first(qwen2, monkeypatch):
    pytest.importorskip("deepspeed")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="Make the training arguments"):
        RewardModel(qwen2.path, placement="zero3")


def test_the_shipped_configuration_offloads_parameters_to_pinned_memory():
    settings = read_config(shipped_folder("accelerate_configs") / CONFIG, torch.bfloat16)
    assert settings["zero_optimization"]["stage"] == 3
    assert settings["zero_optimization"]["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert settings["bf16"]["enabled"] is True
    assert read_config(shipped_folder("accelerate_configs") / CONFIG, torch.float32)["bf16"]["enabled"] is False


@pytest.mark.parametrize(("dtype", "bf16", "fp16"), [("bfloat16", True, None), ("float16", False, True)])
def test_the_configuration_s_number_type_is_the_model_s(dtype, bf16, fp16):
    """DeepSpeed would make the model fp32, at twice the memory."""
    settings = read_config(shipped_folder("accelerate_configs") / CONFIG, getattr(torch, dtype))
    assert settings["bf16"]["enabled"] is bf16
    assert settings.get("fp16", {}).get("enabled") is fp16
    contrary = {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True}, "fp16": {"enabled": "auto", "a": 1}}
    settings = read_config(contrary, torch.float32)
    assert settings["bf16"] == {"enabled": False}
    assert settings["fp16"] == {"enabled": False, "a": 1}


def test_what_belongs_to_training_is_left_out_of_a_configuration():
    given = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}, "optimizer": {"type": "AdamW"}}
    settings = read_config(given, torch.float32)
    assert settings == {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1}
    assert "optimizer" in given


@pytest.mark.parametrize("stage", [None, 2])
def test_another_stage_is_refused(tmp_path, stage):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    with pytest.raises(ValueError, match=rf"must have zero_optimization.stage 3, got {stage} in .*config.json"):
        read_config(path, torch.float32)


def test_a_configuration_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json' does not exist"):
        read_config(tmp_path / "none.json", torch.float32)


def test_a_deepspeed_that_casts_the_rotary_frequencies_is_refused(qwen2, monkeypatch):
    monkeypatch.setattr(zero3, "version", lambda name: "0.19.1")
    with pytest.raises(ImportError, match=r"needs deepspeed 0\.19\.8 or newer, but deepspeed 0\.19\.1 is installed"):
        RewardModel(qwen2.path, placement="zero3", device="cpu")


def test_without_deepspeed_the_message_says_what_to_install(qwen2, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(zero3, "version", missing)
    with pytest.raises(ImportError, match=r"deepspeed is not installed\. pip install 'deepspeed>=0\.19\.8'"):
        RewardModel(qwen2.path, placement="zero3", device="cpu")


def test_the_extra_asks_for_the_same_deepspeed():
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["deepspeed"] == [f"deepspeed>={OLDEST_DEEPSPEED}"]
