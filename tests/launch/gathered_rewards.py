"""Judge 24 fixed completions with as many processes as launched; the main one writes what was paid.

Groups of eight: with two processes of twelve rows, the second group is split between them.
"""

import json
import sys

from datasets import Dataset

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.data import load_tasks
from trl_hybrid.policy.generation import Decoding
from trl_hybrid.training.held_out_accuracy import accuracy, judged_answers
from trl_hybrid.training.leaving import leave_together
from trl_hybrid.training.reward_columns import REWARD_MODEL, VERIFIER


GROUP, ROWS = 8, 24
SYSTEM_PROMPT = "Please reason step by step, and check your final answer within \\boxed{}."


def rows():
    """Three questions, eight answers each, of which some are right."""
    for i in range(ROWS):
        a, b = 100 + i // GROUP, 200
        prompt = [{"role": "user", "content": f"What is {a} + {b}?"}]
        answer = a + b if i % 5 < 2 else a + b + i
        completion = [{"role": "assistant", "content": f"{'0 + 0 = 0. ' * (i % 3)}The answer is \\boxed{{{answer}}}."}]
        yield prompt, completion, str(a + b)


def main(output, folder):
    args = HybridGRPOConfig(
        folder, num_generations=GROUP, per_device_train_batch_size=GROUP, use_cpu=True, report_to="none",
        gradient_checkpointing=False,
    )  # fmt: skip
    data = list(rows())
    trainer = HybridGRPOTrainer(
        "data/embedded_policy",
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [p for p, _, _ in data], "solution": [s for _, _, s in data]}),
        verifier=MathVerifier(num_workers=1),
        reward_model=RewardModel("data/embedded_reward_model", system_prompt=SYSTEM_PROMPT, token_budget=256),
    )
    process, share = trainer.accelerator.process_index, ROWS // trainer.accelerator.num_processes
    own = data[process * share : (process + 1) * share]
    rewards = trainer._calculate_rewards(
        [{"prompt": p, "solution": s} for p, _, s in own],
        [p for p, _, _ in own],
        [c for _, c, _ in own],
        [[5, trainer.eos_token_ids[0]]] * share,
    )
    # An odd number of problems: two processes do not have as many each.
    measured = judged_answers(
        trainer.model,
        trainer.processing_class,
        load_tasks("data/addition", split="test", max_rows=9),
        trainer.verifier,
        Decoding(num_samples=0, max_completion_length=64),
        trainer.accelerator,
    )
    if trainer.accelerator.is_main_process:
        result = {
            "processes": trainer.accelerator.num_processes,
            "rewards": rewards[:, [VERIFIER, REWARD_MODEL, -1]].tolist(),
            "accuracy": accuracy((measured or {}).values(), Decoding(num_samples=0))["greedy"],
        }
        with open(output, "w") as file:
            json.dump(result, file)
    trainer.verifier.close()
    leave_together()
    trainer.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
