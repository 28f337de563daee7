"""Train TinyLlama by GRPO with the hybrid reward: a rule-based verifier and a 7B reward model.

Examples:
  python recipes/tinyllama_grpo.py                                           TinyLlama and AceMath-7B-RM
  python recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml    offline, CPU, minutes
  python recipes/tinyllama_grpo.py --dataset_name my_problems.jsonl --output_dir runs/mine
  python recipes/tinyllama_grpo.py --output_dir runs/mine --resume_from_checkpoint latest
  python recipes/tinyllama_grpo.py --push_to_hub --hub_model_id my-name/tinyllama-maths
several GPUs:
  accelerate launch --config_file accelerate_configs/multi_gpu.yaml --num_processes 4 recipes/tinyllama_grpo.py
"""

from pathlib import Path

from trl import get_quantization_config

from trl_hybrid import HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.recipe import RECIPE_DEFAULTS, GRPORun, adapter_config, reward_model_settings, verifier_settings


DATA = Path(__file__).resolve().parent.parent / "data"

# Under the command line and a flat YAML file (--config), over TRL's own defaults.
DEFAULTS = {**RECIPE_DEFAULTS, "dataset_name": str(DATA / "dummy_math_tasks.jsonl")}


def main() -> None:
    """Check what is cheap to check, load the judges and the policy, train, save, and show what came of it."""
    with GRPORun() as run:
        judges, args, model = run.parse(DEFAULTS, __doc__)

        verifier = MathVerifier(**verifier_settings(judges))
        train_tasks, _ = run.load_tasks(verifier)
        reward_model = RewardModel(
            judges.reward_model_name_or_path,
            reserved_memory=run.reserved_memory(),
            **reward_model_settings(judges),
        )
        run.check_judges(verifier, reward_model)

        trainer = HybridGRPOTrainer(
            model.model_name_or_path,
            args=args,
            verifier=verifier,
            reward_model=reward_model,
            train_dataset=train_tasks,
            peft_config=adapter_config(model),
            quantization_config=get_quantization_config(model),
        )
        run.train(trainer)
        run.save(trainer)
        verifier.close()


if __name__ == "__main__":
    main()
