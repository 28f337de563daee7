"""Train a reward model of your own: a policy's answers, judged by the verifier, become pairs of right and wrong.

Examples:
  python recipes/train_reward_model.py --config recipes/configs/reward_model_embedded.yaml   offline, CPU, minutes
  python recipes/train_reward_model.py --config recipes/configs/reward_model_gpu.yaml        0.5B, GSM8K
  python recipes/train_reward_model.py --dataset_name my_problems.jsonl --policies my/policy --output_dir runs/my-rm
  python recipes/train_reward_model.py --samples runs/a/samples.jsonl runs/b/eval/rows.jsonl
  python recipes/train_reward_model.py --output_dir runs/my-rm --resume_from_checkpoint latest
then, as it lies in its folder:
  python recipes/tinyllama_grpo.py --reward_model_name_or_path runs/my-rm
"""

from pathlib import Path

from trl import get_quantization_config

from trl_hybrid import MathVerifier
from trl_hybrid.recipe import RewardModelRun, RewardModelTrainer, score_adapter_config


DATA = Path(__file__).resolve().parent.parent / "data"

# Under the command line and a flat YAML file (--config), over TRL's own defaults.
DEFAULTS = {
    "run_name": "reward-model",
    "model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct",
    # The weights; a GPU that has bfloat16 computes in it.
    "dtype": "float32",
    "dataset_name": str(DATA / "dummy_math_tasks.jsonl"),
    "system_prompt": "Solve the problem step by step. End with the final answer in \\boxed{}, like this: \\boxed{42}",
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "learning_rate": 2e-5,
    "warmup_steps": 10,
    "max_grad_norm": 1.0,
    # Keeps the mean of all scores near 0, which pairs alone leave open (arXiv 2312.09244, eq. 2).
    "center_rewards_coefficient": 0.01,
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "logging_steps": 1,
    "report_to": "none",
}


def main() -> None:
    """Answer each problem several times, pair right with wrong answers, train on the pairs, save and measure."""
    with RewardModelRun() as run:
        args, model = run.parse(DEFAULTS, __doc__)

        with MathVerifier() as verifier:
            problems = run.load_tasks(verifier)
            rows = run.answer(problems, verifier)

        trainer = RewardModelTrainer(
            str(model.model_name_or_path),
            args=args,
            train_dataset=run.pairs(rows),
            processing_class=run.tokenizer,
            peft_config=score_adapter_config(model),
            quantization_config=get_quantization_config(model),
            shared_prompts=run.pairing.shared_prompts,
            head_learning_rate=run.pairing.head_learning_rate,
        )
        run.train(trainer)
        run.save(trainer)


if __name__ == "__main__":
    main()
