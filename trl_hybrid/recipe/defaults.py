"""What the training recipe sets where neither command line nor YAML file does; `trl-hybrid plan` reads the same."""

from typing import Any


RECIPE_DEFAULTS: dict[str, Any] = {
    "run_name": "tinyllama-grpo",
    "model_name_or_path": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "dtype": "bfloat16",
    "use_peft": True,
    "lora_r": 32,
    "lora_alpha": 64,
    "lora_dropout": 0.0,
    "lora_target_modules": "all-linear",
    "system_prompt": "Solve the problem step by step. End with the final answer in \\boxed{}, like this: \\boxed{42}",
    # 8 prompts of 8 completions a step.
    "num_generations": 8,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 8,
    "temperature": 0.8,
    # The seed's max_length of 512 held prompt and completion together. With the system prompt a question of 256
    # characters takes up to 128 tokens, which leaves 384.
    "max_completion_length": 384,
    # An answer that was cut off is wrong and is trained on: for a model of this size running on is the commonest way
    # to fail, and masking such answers would take away the only pressure against it.
    "mask_truncated_completions": False,
    "learning_rate": 1e-5,
    "max_grad_norm": 1.0,
    "max_steps": 100,
    "save_steps": 5,
    "save_total_limit": 3,
    "logging_steps": 1,
    "log_completions": True,
    "num_completions_to_print": 0,
    "report_to": "none",
}
