import pytest
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from trl_hybrid.reward_model import RewardModel


def test_stock_grpo_trainer_takes_the_judge_as_a_reward_function(qwen2, causal_folder, tmp_path):
    """The policy is told how to answer; the reward model's scores are those of the bare problem."""
    told = {"role": "system", "content": "Answer in <answer> tags."}
    prompts = [[told, {"role": "user", "content": f"What is {number} + 1?"}] for number in range(4)]
    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=6,
        max_steps=1,
        logging_steps=1,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
    )
    trainer = GRPOTrainer(
        model=str(causal_folder),
        reward_funcs=[RewardModel(qwen2.path)],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=AutoTokenizer.from_pretrained(causal_folder),
    )
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["reward_model/truncated_rows"] == log["reward_model/nonfinite_rows"] == 0.0
    rows = zip(trainer._logs["prompt"], trainer._logs["completion"], strict=True)
    expected = [qwen2.score(prompt[1]["content"], completion[0]["content"]) for prompt, completion in rows]
    assert list(trainer._logs["rewards"]["reward_model"]) == pytest.approx(expected, abs=1e-5)
    assert log["rewards/reward_model/mean"] == pytest.approx(sum(expected) / 4, abs=1e-5)
