"""A mixture, part of it unusable, through the recipe: the block is printed once and the rest is trained on."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mixture_is_checked_once_and_trained_on_by_two_processes(tmp_path, jsonl):
    additions = [json.loads(line) for line in Path("data/addition/train.jsonl").read_text().splitlines()[:40]]
    additions[3]["answer"] = "proof"
    verl = [
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "reward_model": {"style": "rule", "ground_truth": row["answer"]},
        }
        for row in additions[20:]
    ]
    pd.DataFrame(verl).to_parquet(tmp_path / "verl.parquet")
    parts = [jsonl(additions[:20]), str(tmp_path / "verl.parquet")]
    config = yaml.safe_load(Path("recipes/configs/embedded.yaml").read_text())
    del config["dataset_name"]
    short = {"max_steps": 1, "per_device_train_batch_size": 8, "max_test_rows": 4, "test_split_size": 8}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**config, **short, "datasets": [{"path": p} for p in parts]}))
    result = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_processes", "2", "--multi_gpu",
            "--main_process_port", "0", "--num_cpu_threads_per_process", "1", "recipes/tinyllama_grpo.py",
            "--config", tmp_path / "c.yaml", "--output_dir", tmp_path / "run",
        ],
        capture_output=True, text=True, timeout=280, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    names = ", ".join(parts)
    assert result.stdout.count(f"Problems: {names}\n") == 1
    assert result.stdout.count("the gold is a placeholder") == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["steps"], summary["train_file"]) == (1, names)
    assert [part["path"] for part in summary["settings"]["tasks"]["datasets"]] == parts
