"""A finished run's folder, as the recipe leaves it, made without training."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import ModelConfig, RewardConfig

from trl_hybrid.hub.saved import Trained, lora_values, probe_logits
from trl_hybrid.recipe.options import JudgeArguments, TaskArguments
from trl_hybrid.recipe.pair_options import PairArguments
from trl_hybrid.runs.settings import write_settings
from trl_hybrid.training.config import HybridGRPOConfig


POLICY, REWARD_MODEL = "data/embedded_policy", "data/embedded_reward_model"
SYSTEM_PROMPT = 'Think "hard" about `x | y`.\nThen answer.'


def save_policy(folder: Path, adapter: bool = True) -> Trained:
    """Save a policy that differs from the embedded one, with its tokenizer; return what it says in memory."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32)
    if adapter:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name or not adapter:
            torch.nn.init.normal_(weight.data, std=0.05)
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Trained(probe_logits(model, tokenizer), torch.float32, 1e-3, lora_values(model))


def make_reward_model_run(folder: Path, figures: dict | None = None, **settings) -> Path:
    """Make the folder of a run that trained a reward model, the embedded one.

    Args:
        folder: Made here.
        figures: What was measured of it, in place of an AUC of 0.8.
        **settings: Of `TaskArguments` or `PairArguments`, in place of the defaults.
    """
    shutil.copytree(REWARD_MODEL, folder)
    tasks = {key: value for key, value in settings.items() if key in TaskArguments.__dataclass_fields__}
    pairs = {key: value for key, value in settings.items() if key in PairArguments.__dataclass_fields__}
    run_settings = {
        "tasks": asdict(TaskArguments(**{"dataset_name": "data/addition", **tasks})),
        "pairs": asdict(PairArguments(**pairs)),
        "model": asdict(ModelConfig(model_name_or_path=POLICY, use_peft=False)),
        "training": RewardConfig(str(folder), use_cpu=True, report_to="none", bf16=False).to_dict(),
    }
    write_settings(folder, run_settings)
    auc = {"value": 0.8, "low": 0.7, "high": 0.9, "problems": 41}
    summary = {
        "held_out": {"problems": 60, "answers": 720, "figures": {"auc": auc} if figures is None else figures},
        "pairs": {
            "problems": 300, "held_out": 60, "answers": 900, "with_both": 150, "pairs": 640, "left_out_by_length": 80,
        },
        "base_model": POLICY,
        "steps": 40,
        "seconds": 90.0,
        "versions": {"trl": "1.16.0"},
        "settings": run_settings,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    for name in ("training_args.bin", "samples.jsonl", "samples-2.jsonl", "checkpoint-5/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not for others")
    return folder


def make_run(folder: Path, adapter: bool = True, base: str = POLICY, **settings) -> Path:
    """Make a run's folder with everything in it that lies in one, the files that are not shared included.

    Args:
        folder: Made here.
        adapter: LoRA, or all weights.
        base: The base model's name in the settings.
        **settings: Of `TaskArguments`, `JudgeArguments` or `HybridGRPOConfig`, in place of the defaults.
    """
    save_policy(folder, adapter)

    def own(kind):
        return {key: value for key, value in settings.items() if key in kind.__dataclass_fields__}

    training = HybridGRPOConfig(str(folder), use_cpu=True, report_to="none", **own(HybridGRPOConfig))
    run_settings = {
        "tasks": asdict(TaskArguments(**{"dataset_name": "data/addition", **own(TaskArguments)})),
        "judges": asdict(JudgeArguments(**own(JudgeArguments))),
        "model": asdict(ModelConfig(model_name_or_path=base, use_peft=adapter)),
        "training": training.to_dict(),
    }
    write_settings(folder, run_settings)
    summary = {
        "accuracy": {"greedy": {"before": 0.3, "after": 0.9609375}, "mean_of_8": {"before": None, "after": 0.92}},
        "test_rows": 256,
        "base_model": base,
        "train_file": "data/addition/train.jsonl",
        "test_file": "data/addition/test.jsonl",
        "steps": 40,
        "seconds": {"total": 90.0, "training": 60.0, "steps": 168.0},
        "versions": {"trl": "1.16.0", "torch": "2.13.0"},
        "commits": {"model": None, "reward_model": "c" * 40},
        "settings": run_settings,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "curves.png").write_bytes(bytes.fromhex("89504e470d0a1a0a") + bytes(range(256)))
    for name in ("training_args.bin", "report.html", "accuracy_before.json", "checkpoint-5/model.safetensors",
                 "checkpoint-5/optimizer.pt", "completions/completions_00001.parquet"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not for others")
    return folder
