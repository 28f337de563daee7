"""From a recipe's settings to the estimates of `memory.py`."""

import inspect
from typing import Any

import torch
from transformers import AutoConfig
from trl import ModelConfig, SFTConfig, get_peft_config

from trl_hybrid.config import HybridGRPOConfig
from trl_hybrid.evaluate import HeldOutAccuracy
from trl_hybrid.memory import CONTEXT_BYTES, Policy, Workload, describe_policy, estimate_training, generation_bytes


PROMPT_TOKENS = 256
"""Assumed for the longest prompt, chat template included."""


def policy_of(model: ModelConfig, training: HybridGRPOConfig | SFTConfig) -> Policy:
    """Count the policy's weights from its configuration alone."""
    name, revision, trusted = str(model.model_name_or_path), model.model_revision, training.trust_remote_code
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trusted)
    dtype = named_dtype(model.dtype) or getattr(config, "dtype", None) or torch.float32
    bits = 4 if model.load_in_4bit else 8 if model.load_in_8bit else None
    return describe_policy(config, dtype, get_peft_config(model), bits, trusted)


def workload_of(
    training: HybridGRPOConfig, measures: bool, processes: int, prompt_tokens: int = PROMPT_TOKENS
) -> Workload:
    """Say how much one process computes at once.

    Args:
        training: The settings.
        measures: Whether held-out accuracy is measured, which samples several answers a problem.
        processes: How many train together.
        prompt_tokens: Of the longest prompt.

    Returns:
        The workload.
    """
    generated = training.per_device_train_batch_size * int(training.steps_per_generation or 1)
    if training.use_vllm:
        generated = 0
    if measures:  # held-out answers are transformers' either way
        samples = inspect.signature(HeldOutAccuracy).parameters["num_samples"].default
        generated = max(generated, training.per_device_eval_batch_size * samples)
    return Workload(
        rows=training.per_device_train_batch_size,
        generated_rows=generated,
        prompt_tokens=prompt_tokens,
        completion_tokens=int(training.max_completion_length or 0),
        gradient_checkpointing=training.gradient_checkpointing,
        beta=training.beta,
        optim=str(getattr(training.optim, "value", training.optim)),
        processes=processes,
    )


def reserved_bytes(model: ModelConfig, training: HybridGRPOConfig, measures: bool, processes: int) -> int:
    """Return what training will take of this process's GPU beside the reward model; 0 where there is no GPU.

    Args:
        model: The policy.
        training: The settings.
        measures: Whether held-out accuracy is measured.
        processes: How many train together.

    Returns:
        Bytes: the estimate of `memory.py`, and colocated vLLM's share of the GPU.
    """
    if training.use_cpu or not torch.cuda.is_available():
        return 0
    needed = estimate_training(policy_of(model, training), workload_of(training, measures, processes)).total
    if training.use_vllm and training.vllm_mode == "colocate":
        needed += int(torch.cuda.mem_get_info()[1] * training.vllm_gpu_memory_utilization)
    return needed


def sampling_bytes(name: str, rows: int, completion_tokens: int, prompt_tokens: int = PROMPT_TOKENS) -> int:
    """Return what answering problems takes of this process's GPU; 0 where there is no GPU.

    Args:
        name: The policy: id on the Hub or folder.
        rows: Answers generated at once.
        completion_tokens: Of the longest answer.
        prompt_tokens: Of the longest prompt.
    """
    if not torch.cuda.is_available():
        return 0
    policy = describe_policy(AutoConfig.from_pretrained(name), torch.bfloat16)
    work = Workload(0, rows, prompt_tokens, completion_tokens)
    return policy.weight_bytes + generation_bytes(policy, work) + CONTEXT_BYTES


def named_dtype(name: str | None) -> Any:
    """Return torch's dtype of that name, None for none and for "auto"."""
    return None if name in (None, "auto") else getattr(torch, name)
