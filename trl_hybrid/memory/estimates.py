"""From a recipe's settings, and the launch's, to the estimates of `memory.py` and `zero_memory.py`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig
from trl import ModelConfig, RewardConfig, SFTConfig, get_peft_config

from trl_hybrid.errors import InputError
from trl_hybrid.memory.training import (
    CONTEXT_BYTES,
    Policy,
    TrainingMemory,
    Workload,
    describe_policy,
    estimate_training,
    generation_bytes,
)
from trl_hybrid.memory.zero import Sharing, estimate_shared_training
from trl_hybrid.reward_model.footprint import Footprint, Need
from trl_hybrid.training.config import HybridGRPOConfig
from trl_hybrid.training.held_out_accuracy import SAMPLES


PROMPT_TOKENS = 256
"""Assumed for the longest prompt, chat template included."""


@dataclass(frozen=True)
class Launch:
    """What an accelerate configuration says about memory.

    Args:
        processes: GPUs that train together.
        sharing: What DeepSpeed shares out; None where each GPU holds all.
    """

    processes: int
    sharing: Sharing | None = None


def read_launch(path: str) -> Launch:
    """Read an accelerate configuration, such as `accelerate_configs/zero2.yaml`.

    Raises:
        InputError: There is no such file, or it is no such configuration.
    """
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        if settings.get("distributed_type") != "DEEPSPEED":
            return Launch(int(settings.get("num_processes", 1)))
        shared = settings["deepspeed_config"]
        if file := shared.get("deepspeed_config_file"):
            sharing = Sharing.from_settings(json.loads(Path(file).read_text(encoding="utf-8")))
        else:
            offload = [shared.get(f"offload_{part}_device", "none") != "none" for part in ("optimizer", "param")]
            sharing = Sharing(int(shared["zero_stage"]), *offload)
        return Launch(int(settings.get("num_processes", 1)), sharing)
    except (OSError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"A launch configuration is a YAML file as `accelerate config` writes it, but {path!r} cannot be read as "
            f"one ({type(error).__name__}: {reason}). Take one of accelerate_configs/."
        ) from error


def launched_sharing(training: HybridGRPOConfig) -> Sharing | None:
    """Return what DeepSpeed shares out in this launch; None without DeepSpeed."""
    plugin: Any = getattr(training, "deepspeed_plugin", None)
    return None if plugin is None else Sharing.from_settings(plugin.deepspeed_config)


def training_memory(policy: Policy, work: Workload, sharing: Sharing | None) -> TrainingMemory:
    """Estimate one GPU's memory in training, by what its processes share."""
    if sharing is None:
        return estimate_training(policy, work)
    return estimate_shared_training(policy, work, sharing)


def policy_of(model: ModelConfig, training: HybridGRPOConfig | SFTConfig | RewardConfig) -> Policy:
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
    """
    generated = training.per_device_train_batch_size * int(training.steps_per_generation or 1)
    if training.use_vllm:
        generated = 0
    if measures:  # held-out answers are transformers' either way
        generated = max(generated, training.per_device_eval_batch_size * SAMPLES)
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


def reserved_bytes(model: ModelConfig, training: HybridGRPOConfig, measures: bool, processes: int) -> Need:
    """Return what training will take of this process's GPU beside the reward model, with colocated vLLM's share of it.

    Nothing where there is no GPU.
    """
    if training.use_cpu or not torch.cuda.is_available():
        return Need(0)
    work = workload_of(training, measures, processes)
    needed = training_memory(policy_of(model, training), work, launched_sharing(training)).need
    if training.use_vllm and training.vllm_mode == "colocate":
        return needed.beside(Need(int(torch.cuda.mem_get_info()[1] * training.vllm_gpu_memory_utilization)))
    return needed


def sampling_bytes(
    name: str,
    rows: int,
    completion_tokens: int,
    prompt_tokens: int = PROMPT_TOKENS,
    dtype: torch.dtype = torch.bfloat16,
) -> Need:
    """Return what answering problems takes of this process's GPU; nothing where there is no GPU."""
    if not torch.cuda.is_available():
        return Need(0)
    policy = describe_policy(AutoConfig.from_pretrained(name), dtype)
    work = Workload(0, rows, prompt_tokens, completion_tokens)
    return Need(policy.weight_bytes + CONTEXT_BYTES, generation_bytes(policy, work))


def quantized_footprint(footprint: Footprint, bits: int | None) -> Footprint:
    """Return the footprint with the layers' weights quantized; 4 bits count as 4.5, see `describe_policy`."""
    if bits is None:
        return footprint
    share = (4.5 if bits == 4 else bits) / 8 / footprint.bytes_per_element
    return replace(footprint, layer_bytes=int(footprint.layer_bytes * share), streamable=False)


def named_dtype(name: str | None) -> Any:
    """Return torch's dtype of that name, None for none and for "auto"."""
    return None if name in (None, "auto") else getattr(torch, name)
