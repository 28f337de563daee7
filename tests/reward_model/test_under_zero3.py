import json
import subprocess
import sys
from pathlib import Path

import pytest


PROGRAM = """
import json, sys
from transformers import AutoModelForSequenceClassification, TrainingArguments
arguments = TrainingArguments(sys.argv[2], use_cpu=True, bf16=True, report_to="none")
from trl_hybrid.reward_model import RewardModel
scores = RewardModel(sys.argv[1]).compute_batch_reward("Q", ["a", "bcd"])
plain = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).score.weight.numel()
with open(f"{sys.argv[2]}/{arguments.process_index}.json", "w") as file:
    json.dump({"scores": scores, "plain": plain}, file)
"""
LAUNCH = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "DEEPSPEED",
    "deepspeed_config": {"zero_stage": 3, "offload_param_device": "cpu", "zero3_init_flag": True},
    "mixed_precision": "bf16",
    "num_machines": 1,
    "num_processes": 2,
    "use_cpu": True,
}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_process_scores_with_whole_weights_while_the_policy_is_under_zero3(qwen2, tmp_path):
    pytest.importorskip("deepspeed")
    (tmp_path / "launch.json").write_text(json.dumps(LAUNCH))
    (tmp_path / "program.py").write_text(PROGRAM)
    accelerate = str(Path(sys.executable).with_name("accelerate"))
    launch = [accelerate, "launch", "--config_file", str(tmp_path / "launch.json"), str(tmp_path / "program.py")]
    subprocess.run([*launch, qwen2.path, str(tmp_path)], check=True, timeout=280, cwd=Path(__file__).parents[2])
    expected = [qwen2.score("Q", "a"), qwen2.score("Q", "bcd")]
    for process in range(2):
        report = json.loads((tmp_path / f"{process}.json").read_text())
        assert report["scores"] == pytest.approx(expected, abs=1e-5)
        assert report["plain"] == 0  # what from_pretrained leaves of a model while the policy's settings are alive
