"""The whole chain, small: a policy answers, a reward model learns from it, GRPO and best-of-n go by its scores."""

import json
import subprocess
import sys

import pytest
from transformers import AutoConfig

from trl_hybrid.cli import main


RECIPE = ["recipes/train_reward_model.py", "--config", "recipes/configs/reward_model_embedded.yaml"]


def launch(*command):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_reward_model_learns_to_tell_right_from_wrong_and_grpo_and_best_of_n_use_it(tmp_path):
    folder = tmp_path / "rm"
    small = ("--max_rows", 512, "--use_peft", "true", "--lora_r", 32, "--output_dir", folder)
    shown = launch(*RECIPE, *small)
    assert "Saved model checked: ok" in shown
    assert AutoConfig.from_pretrained(folder).num_labels == 1
    assert not (folder / "adapter_config.json").exists()
    summary = json.loads((folder / "summary.json").read_text())
    figures = summary["held_out"]["figures"]
    assert figures["auc"]["low"] > 0.6
    assert figures["right_same"]["low"] > 0.5  # and not by length
    assert summary["pairs"]["problems"] == 512
    assert f"{summary['pairs']['pairs']} pairs of a better and a worse answer" in shown
    assert "| AUC within problems |" in (folder / "README.md").read_text()

    answers = [(folder / name).read_bytes() for name in ("samples.jsonl", "samples-2.jsonl")]
    (folder / "summary.json").unlink()  # as where the end was interrupted
    again = launch(*RECIPE, *small, "--resume_from_checkpoint", "latest")
    assert "step " not in again
    assert [(folder / name).read_bytes() for name in ("samples.jsonl", "samples-2.jsonl")] == answers
    resumed = json.loads((folder / "summary.json").read_text())["held_out"]["figures"]
    assert resumed["auc"]["value"] == pytest.approx(figures["auc"]["value"], abs=1e-6)

    grpo = tmp_path / "grpo"
    launch(
        *("recipes/tinyllama_grpo.py", "--config", "recipes/configs/embedded.yaml", "--max_steps", 2),
        *("--max_test_rows", 0, "--per_device_train_batch_size", 32, "--output_dir", grpo),
        *("--reward_model_name_or_path", folder, "--reward_model_system_prompt", ""),
    )
    assert json.loads((grpo / "summary.json").read_text())["steps"] == 2
    evaluation = tmp_path / "eval"
    measured = ["--model", "data/embedded_policy", "--dataset_name", "data/addition", "--max_rows", "64"]
    sampled = ["--num_samples", "8", "--batch_size", "32", "--max_completion_length", "40"]
    assert main(["eval", *measured, *sampled, "--reward_model", str(folder), "--output_dir", str(evaluation)]) == 0
    result = json.loads((evaluation / "eval.json").read_text())["figures"]["lenient"]
    assert result["best_of_8"]["value"] > result["mean_of_8"]["value"] + 0.05
