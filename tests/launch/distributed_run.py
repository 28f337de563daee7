"""Train two steps on 24 fixed completions with as many processes as launched, save, and report what happened.

python tests/launch/distributed_run.py FOLDER PLACEMENT {lora,full}

Groups of eight: with two processes of twelve rows, the second group is split between them. The main process writes
`report.json` and the trained model's `logits.json` into the folder, and the trained model into `FOLDER/model`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from gathered_rewards import GROUP, ROWS, SYSTEM_PROMPT, rows
from peft import LoraConfig

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.data import load_tasks
from trl_hybrid.hub.saved import check_saved_model, trained_logits
from trl_hybrid.policy.generation import Decoding
from trl_hybrid.training.held_out_accuracy import accuracy, judged_answers
from trl_hybrid.training.leaving import leave_together


FIXED_IDS = [[1, 5, 9, 14, 20, 7, 3, 11], [1, 8, 8, 30, 2, 6, 12, 4]]


class RecordingTrainer(HybridGRPOTrainer):
    """Keeps every generation's rewards and advantages, gathered from all processes."""

    def _calculate_rewards(self, *args: Any) -> torch.Tensor:
        rewards = super()._calculate_rewards(*args)
        self.rewards.append([dict(zip(self.reward_func_names, row, strict=True)) for row in rewards.tolist()])
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        self.advantages.append(self.accelerator.gather(output["advantages"]).tolist())
        return output


def answer(prompts: list, trainer: Any) -> dict[str, list]:
    """Stand in for generation: each row's completion is fixed by its place among all processes' rows."""
    first = trainer.accelerator.process_index * len(prompts)
    own = list(rows())[first : first + len(prompts)]
    assert [prompt for prompt, _, _ in own] == prompts
    tokenizer = trainer.processing_class
    texts = [completion[0]["content"] for _, completion, _ in own]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert tokenizer.batch_decode(ids) == texts
    return {
        "prompt_ids": [tokenizer.apply_chat_template(p, add_generation_prompt=True)["input_ids"] for p in prompts],
        "completion_ids": [[*row, tokenizer.eos_token_id] for row in ids],
        "logprobs": None,
    }


def make_trainer(folder: Path, placement: str, how: str) -> RecordingTrainer:
    """Train the embedded policy on three questions a step, with LoRA or all of it."""
    share = ROWS // int(os.environ.get("WORLD_SIZE", "1"))
    args = HybridGRPOConfig(
        str(folder / "run"), num_generations=GROUP, per_device_train_batch_size=share, gradient_accumulation_steps=1,
        max_steps=2, learning_rate=1e-3, shuffle_dataset=False, save_strategy="no", logging_steps=1, use_cpu=True,
        bf16=False, report_to="none", gradient_checkpointing=False, model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    questions = list(rows())[::GROUP]
    trainer = RecordingTrainer(
        "data/embedded_policy",
        args=args,
        train_dataset=Dataset.from_dict(
            {"prompt": [prompt for prompt, _, _ in questions], "solution": [gold for _, _, gold in questions]}
        ),
        verifier=MathVerifier(num_workers=1),
        reward_model=RewardModel(
            "data/embedded_reward_model", system_prompt=SYSTEM_PROMPT, token_budget=256, placement=placement
        ),
        peft_config=LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM") if how == "lora" else None,
        rollout_func=answer,
    )
    trainer.rewards, trainer.advantages = [], []
    return trainer


def uneven(trainer: RecordingTrainer) -> dict[str, Any]:
    """Score and answer where the processes do not have as many rows each, one of them none."""
    process = trainer.accelerator.process_index
    scores = [trainer.reward_model.compute_batch_reward("Q", texts) for texts in ([["7"] * 3, []][process], ["8"])]
    held_out = judged_answers(
        trainer.model,
        trainer.processing_class,
        load_tasks("data/addition", split="test", max_rows=5),
        trainer.verifier,
        Decoding(num_samples=0, max_completion_length=40),
        trainer.accelerator,
    )
    return {
        "uneven_rows": [len(row) for row in scores],
        "accuracy": accuracy((held_out or {}).values(), Decoding(num_samples=0))["greedy"],
    }


def places(parameters: Any) -> dict[str, Any]:
    """Say how much of a model this process holds, and on which devices."""
    held = [(getattr(p, "ds_tensor", p), getattr(p, "ds_numel", p.numel()), hasattr(p, "ds_id")) for p in parameters]
    return {
        "sharded": sorted({sharded for _, _, sharded in held}),
        "devices": sorted({str(own.device) for own, _, _ in held}),
        "share": sum(own.numel() for own, _, _ in held) / sum(whole for _, whole, _ in held),
    }


def main(folder: Path, placement: str, how: str) -> None:
    """Train, save and report."""
    trainer = make_trainer(folder, placement, how)
    trainer.train()
    trainer.save_model(str(folder / "model"))
    trained = trained_logits(trainer)
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(torch.tensor(FIXED_IDS)).logits
    processes = trainer.accelerator.num_processes
    report = {
        "policy": places(trainer.model.parameters()),
        "reward_model": places(trainer.reward_model.backend.forward.body.parameters()),
        **uneven(trainer),
    }
    reports = gather_object([report])
    if trainer.accelerator.is_main_process:
        check_saved_model(folder / "model", trained)
        paid = {"processes": processes, "rewards": trainer.rewards, "advantages": trainer.advantages}
        (folder / "report.json").write_text(json.dumps({**paid, "each": reports}))
        (folder / "logits.json").write_text(json.dumps({"input_ids": FIXED_IDS, "logits": logits.tolist()}))
    trainer.verifier.close()
    leave_together()
    trainer.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
