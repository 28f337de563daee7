"""Train TinyLlama by GRPO with the hybrid reward: a rule-based verifier and a 7B reward model.

    python recipes/tinyllama_grpo.py                                             # TinyLlama + AceMath-7B-RM
    python recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml      # offline, CPU, minutes
    python recipes/tinyllama_grpo.py --dataset_name openai/gsm8k --dataset_config main
    accelerate launch --num_processes 4 recipes/tinyllama_grpo.py                # several GPUs

Settings come from the command line, over a flat YAML file (--config), over RECIPE_DEFAULTS in
trl_hybrid/recipe/defaults.py, over TRL's own defaults.
Everything that a run makes lies in its folder, runs/<run_name> unless --output_dir says otherwise.
"""

from pathlib import Path

from trl import get_quantization_config

from trl_hybrid import HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.recipe import RECIPE_DEFAULTS, GRPORun, reward_model_settings


DATA = Path(__file__).resolve().parent.parent / "data"

DEFAULTS = {**RECIPE_DEFAULTS, "dataset_name": str(DATA / "dummy_math_tasks.jsonl")}

SUMMARY = "Train TinyLlama by GRPO with the hybrid reward: a rule-based verifier and a 7B reward model."

EXAMPLES = """examples:
  python recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml
  python recipes/tinyllama_grpo.py --dataset_name my_problems.jsonl --output_dir runs/mine
  python recipes/tinyllama_grpo.py --output_dir runs/mine --resume_from_checkpoint latest
  python recipes/tinyllama_grpo.py --push_to_hub --hub_model_id my-name/tinyllama-maths
several GPUs:
  accelerate launch --config_file accelerate_configs/multi_gpu.yaml --num_processes 4 recipes/tinyllama_grpo.py
"""


def main() -> None:
    """Load the judges, the problems and the policy, train, and show what came of it."""
    with GRPORun(DEFAULTS, SUMMARY, EXAMPLES) as run:
        judges, model = run.judges, run.model
        verifier = MathVerifier(timeout=judges.verifier_timeout, num_workers=judges.verifier_num_workers)
        train_tasks = run.load_tasks(verifier)
        reward_model = RewardModel(
            judges.reward_model_name_or_path, reserved_memory=run.reserved_memory, **reward_model_settings(judges)
        )
        run.prepare(reward_model)
        trainer = HybridGRPOTrainer(
            model.model_name_or_path,
            args=run.args,
            verifier=verifier,
            reward_model=reward_model,
            train_dataset=train_tasks,
            peft_config=run.peft_config,
            quantization_config=get_quantization_config(model),
        )
        run.train(trainer)
        run.save(trainer)


if __name__ == "__main__":
    main()
