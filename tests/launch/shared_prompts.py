"""Train one step by plain gradient descent, with or without shared prompts, and save the weights."""

import sys
from pathlib import Path

from datasets import Dataset

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer
from trl_hybrid.training.leaving import leave_together


def alternating(completions, completion_ids, **kwargs):
    """A reward that differs within every group."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def main(folder: Path, shared: bool) -> None:
    args = HybridGRPOConfig(
        str(folder),
        shared_prompts=shared,
        num_generations=4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_completion_length=24,
        max_steps=1,
        optim="sgd",
        learning_rate=1e4,  # the weights' own rounding is nothing beside such a step
        lr_scheduler_type="constant",
        max_grad_norm=1e9,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
    )
    prompts = [[{"role": "user", "content": f"What is {i} + {i * 37}?"}] for i in range(8)]
    trainer = HybridGRPOTrainer(
        "data/embedded_policy", alternating, args, train_dataset=Dataset.from_dict({"prompt": prompts})
    )
    trainer.train()
    assert bool(trainer.shares_prompts) is shared
    trainer.save_model()
    leave_together()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "shared")
