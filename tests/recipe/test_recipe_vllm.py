"""GRPO whose completions a real vLLM generates in the training process."""

import pytest
from vllm_process import run

from trl_hybrid.runs.history import read_history


pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]


def train(folder, *options):
    """Train in a folder; return what was printed."""
    done = run(
        "tests/launch/vllm_on_cpu.py", "recipes/tinyllama_grpo.py", "--config", "recipes/configs/embedded.yaml",
        "--use_vllm", "true", "--vllm_mode", "colocate", "--vllm_max_model_length", "64",
        "--per_device_train_batch_size", "32", "--learning_rate", "1e-2", "--max_test_rows", "8", "--save_steps", "1",
        "--output_dir", folder, *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_run_with_vllm_in_its_process_ends_clean_and_goes_on(tmp_path):
    first = train(tmp_path, "--max_steps", "2")
    second = train(tmp_path, "--max_steps", "3", "--resume_from_checkpoint", "latest")
    for shown in (first, second):
        # An engine that outlives the process group is heard of when Python ends.
        assert "Traceback" not in shown
        assert "Exception ignored" not in shown
    rows = [row for row in read_history(tmp_path) if "reward" in row]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert -0.1 <= row["reward"] <= 1.1
        assert row["rewards/reward_model/std"] > 0
        # vLLM reads the LoRA's weights of the same step, in bfloat16, the trainer's are float32.
        assert row["sampling/sampling_logp_difference/mean"] < 0.01
    assert (tmp_path / "summary.json").is_file()
