"""Teach TinyLlama its own right answers, so that GRPO starts from more than luck: rejection sampling, then SFT.

Examples:
  python recipes/tinyllama_sft.py --config recipes/configs/gsm8k_sft.yaml       TinyLlama, GSM8K
  python recipes/tinyllama_sft.py --config recipes/configs/embedded_sft.yaml    offline, CPU, a minute
  python recipes/tinyllama_sft.py --dataset_name my_problems.jsonl --output_dir runs/mine-sft
  python recipes/tinyllama_sft.py --output_dir runs/mine-sft --resume_from_checkpoint latest
then, from the whole model in merged/:
  python recipes/tinyllama_grpo.py --model_name_or_path runs/mine-sft/merged
"""

from pathlib import Path

from datasets import Dataset
from trl import get_quantization_config

from trl_hybrid import MathVerifier
from trl_hybrid.recipe import RECIPE_DEFAULTS, ColdStartTrainer, SFTRun, adapter_config


DATA = Path(__file__).resolve().parent.parent / "data"

SHARED = (
    "model_name_or_path", "dtype", "use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules",
    "system_prompt", "max_grad_norm", "report_to",
)  # fmt: skip

# Under the command line and a flat YAML file (--config), over TRL's own defaults.
DEFAULTS = {
    **{name: RECIPE_DEFAULTS[name] for name in SHARED},
    "run_name": "tinyllama-sft",
    "dataset_name": str(DATA / "dummy_math_tasks.jsonl"),
    # As the paper: two passes over the answers.
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "learning_rate": 1e-4,
    "warmup_steps": 10,
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "logging_steps": 1,
}


def main() -> None:
    """Answer each problem several times, keep what the verifier calls right, train on it, and merge."""
    with SFTRun() as run:
        args, model = run.parse(DEFAULTS, __doc__)

        with MathVerifier() as verifier:
            problems = run.load_tasks(verifier)
            rows = run.answer(problems, verifier)

        trainer = ColdStartTrainer(
            str(model.model_name_or_path),
            args=args,
            train_dataset=Dataset.from_list(run.examples(rows)),
            peft_config=adapter_config(model),
            quantization_config=get_quantization_config(model),
        )
        run.train(trainer)
        run.save(trainer)


if __name__ == "__main__":
    main()
