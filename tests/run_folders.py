"""Run folders on disk as tests need them: small files with a run's names."""

import json

import torch
from safetensors.torch import save_file


SETTINGS = {
    "tasks": {"dataset_name": "data/addition", "system_prompt": None, "datasets": [], "max_test_rows": 71},
    "judges": {"reward_model_name_or_path": "data/embedded_reward_model", "reward_model_revision": None},
    "model": {
        "model_name_or_path": "data/embedded_policy", "use_peft": True, "lora_r": 16, "lora_alpha": 32,
        "lora_target_modules": "all-linear",
    },
    "training": {
        "num_generations": 8, "max_steps": 6, "learning_rate": 1e-3, "reward_mode": "hybrid", "hybrid_alpha": 0.1,
        "output_dir": "runs/a",
    },
}  # fmt: skip


def changed(**values):
    """SETTINGS with other values, each in the group that has it."""
    return {group: {name: values.get(name, old) for name, old in own.items()} for group, own in SETTINGS.items()}


def save_settings(folder, settings=SETTINGS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps({"settings": settings, "versions": {"trl": "1.16.0"}}))


def checkpoint(folder, step, whole=True, generation_step=0):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weight": torch.full((2, 2), float(step))}, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text('{"r": 16, "lora_alpha": 32}')
    if whole:
        judges = {"hybrid_judges": {"generation_step": generation_step}}
        (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "stateful_callbacks": judges}))
    return path


def finished_run(folder, steps=6, save_steps=2):
    """A run's folder with checkpoints, tables, history, model and summary, and a file of the user's."""
    save_settings(folder)
    for step in range(save_steps, steps + 1, save_steps):
        checkpoint(folder, step)
    (folder / "completions").mkdir()
    for step in range(1, steps + 1):
        (folder / "completions" / f"completions_{step:05d}.parquet").write_text(f"table {step}")
    rows = [json.dumps({"step": step}) + "\n" for step in range(1, steps + 1)]
    (folder / "history.jsonl").write_text("".join(rows))
    save_file({"weight": torch.ones(2)}, folder / "adapter_model.safetensors")
    for name in ("adapter_config.json", "tokenizer.json", "training_args.bin", "report.html", "accuracy_before.json"):
        (folder / name).write_text(f"{name} of the first run")
    (folder / "summary.json").write_text(json.dumps({"steps": steps}))
    (folder / "notes.txt").write_text("keep me")
    return folder


def tree(folder):
    """Each file below a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
