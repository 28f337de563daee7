"""How much of a GPU's memory training takes where DeepSpeed shares it out over the processes.

What is assumed, as DeepSpeed 0.19 does it in bf16 with its defaults, which accelerate's configuration leaves alone:

- The whole model is cast to bf16, gradients too. The optimizer holds fp32 copies of what is trained, and fp32 moments.
- From stage 1 each process has its share of the optimizer, from stage 2 of the gradients, in stage 3 of all weights.
- Gradients are reduced through a bucket of 5e8 elements, which stages 1 and 2 make anew for each backward.
- In stage 3 up to 1e9 elements of weights are gathered at a time, and all of them to generate
  (`ds3_gather_for_generation`).
- What is offloaded lies in pinned host memory, whose pieces torch rounds up to powers of two, but for the moments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from trl_hybrid.memory.training import FP32, Policy, TrainingMemory, Workload, estimate_training, moment_bytes
from trl_hybrid.reward_model.footprint import pinned_bytes


BF16 = torch.bfloat16.itemsize

BUCKET_ELEMENTS = 5 * 10**8
"""DeepSpeed's `reduce_bucket_size`."""

GATHERED_ELEMENTS = 10**9
"""DeepSpeed's `stage3_max_live_parameters`."""


@dataclass(frozen=True)
class Sharing:
    """What DeepSpeed shares out, and what it puts into host memory.

    Args:
        stage: Of ZeRO, 0 to 3.
        offload_optimizer: Whether the optimizer, and the gradients with it, lie in host memory.
        offload_weights: The same of the weights; in stage 3 only.
    """

    stage: int
    offload_optimizer: bool = False
    offload_weights: bool = False

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Sharing":
        """Read a DeepSpeed configuration.

        Example:
            >>> Sharing.from_settings({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}})
            Sharing(stage=2, offload_optimizer=True, offload_weights=False)
        """
        zero = settings.get("zero_optimization") or {}
        devices = [(zero.get(part) or {}).get("device", "none") for part in ("offload_optimizer", "offload_param")]
        return cls(int(zero.get("stage", 0)), *(device != "none" for device in devices))


def estimate_shared_training(policy: Policy, work: Workload, sharing: Sharing) -> TrainingMemory:
    """Estimate one GPU's memory in GRPO training under DeepSpeed.

    Returns:
        The parts. Activations are the larger of the backward with its bucket and of the optimizer's step, which makes
        fp32 copies of the gradients.
    """
    half = _in_half_precision(policy)
    parts = estimate_training(half, replace(work, processes=1))
    trained = policy.trained_parameters
    own = -(-trained // (work.processes if sharing.stage >= 1 else 1))
    own_gradients = BF16 * (own if sharing.stage >= 2 else trained)
    bucket = BUCKET_ELEMENTS * BF16
    kept_bucket, own_bucket = (bucket, 0) if sharing.stage == 3 else (0, bucket)
    on_gpu = not sharing.offload_optimizer
    backward, step = parts.activations + own_bucket, FP32 * own if on_gpu else 0
    shared = replace(
        parts,
        optimizer=FP32 * own + _own_moments(policy, work, own) if on_gpu else 0,
        gradients=kept_bucket + (own_gradients if on_gpu else 0),
        activations=max(backward, step),
        host=0 if on_gpu else _offloaded_optimizer(policy, work, own),
    )
    return _share_weights(shared, half, work, sharing) if sharing.stage == 3 else shared


def _share_weights(parts: TrainingMemory, policy: Policy, work: Workload, sharing: Sharing) -> TrainingMemory:
    """Share the weights out, and gather them for a while in turn."""
    own = -(-policy.weight_bytes // work.processes)
    gathered = min(policy.weight_bytes, GATHERED_ELEMENTS * BF16)
    return replace(
        parts,
        weights=0 if sharing.offload_weights else own,
        reference=-(-parts.reference // work.processes),
        activations=parts.activations + gathered,
        generation=parts.generation + policy.weight_bytes if work.generated_rows else parts.generation,
        host=parts.host + (pinned_bytes(own) if sharing.offload_weights else 0),
    )


def _in_half_precision(policy: Policy) -> Policy:
    return replace(
        policy,
        weight_bytes=min(policy.weight_bytes, BF16 * policy.parameters),  # quantized weights stay smaller
        base_bytes=min(policy.base_bytes, BF16 * policy.parameters),
        trained_bytes=BF16 * policy.trained_parameters,
        trained_fp32=0,
        element_bytes=BF16,
    )


def _own_moments(policy: Policy, work: Workload, own: int) -> int:
    return moment_bytes(replace(policy, trained_parameters=own, trained_bytes=FP32 * own), work.optim)


def _offloaded_optimizer(policy: Policy, work: Workload, own: int) -> int:
    """The fp32 copies, the fp32 gradients and a bf16 buffer between GPU and host, each one piece; and the moments."""
    return 2 * pinned_bytes(FP32 * own) + pinned_bytes(BF16 * own) + _own_moments(policy, work, own)
