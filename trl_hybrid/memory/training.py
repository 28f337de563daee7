"""How much of a GPU's memory GRPO training of the policy takes, from configurations alone.

What is assumed, as TRL 1.16, transformers 5 and PEFT 0.20 do it:

- Weights stay in the type that they were loaded in. LoRA adapters of a bf16 model are fp32.
- Gradients have their parameters' type, and so have AdamW's two moments (torch makes them like the parameters). DDP
  keeps a second copy of the gradients in its buckets.
- TRL never holds the (rows, tokens, vocabulary) logits: it takes log-probabilities from tiles of 4096 tokens by 32768
  words.
- Without vLLM all completions between two generations are generated at once, with a cache that grows token by token.
- All rows of a forward are of full length, each with its prompt, as TRL computes them: an upper bound. Packed rows
  (`shared_prompts`) hold no more, and less by a group's repeated prompts. That is not taken off: which rows meet in a
  forward depends on the launch, and where the first batch's two ways differ a run is back on TRL's.
- Attention is computed by SDPA or flash attention, which keep no (tokens, tokens) matrix. Not so, and more than is
  estimated: TRL's way in fp32 with grouped keys while no row is padded, for which torch has no such kernel.
- The policy is whole on each GPU. What DeepSpeed shares out is in `zero_memory.py`; FSDP is not estimated.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from trl_hybrid.errors import InputError
from trl_hybrid.reward_model.footprint import Need, forward_bytes_per_token, layer_widths
from trl_hybrid.reward_model.loading import whole_weights


TILE_TOKENS = 4096
"""TRL's `TOKEN_CHUNK_SIZE`."""

TILE_WORDS = 32768
"""TRL's `_CHUNKED_LOGPROB_CHUNK_SIZE`."""

CONTEXT_BYTES = 10**9
"""Assumed for the CUDA context, cuBLAS's workspace and the allocator's slack."""

SAMPLING_COPIES = 4
"""fp32 copies of the last token's logits while sampling: as they come, scaled, sorted, their softmax."""

FP32 = torch.float32.itemsize


@dataclass(frozen=True)
class Policy:
    """What the policy's memory is made of.

    Args:
        config: Of the causal language model.
        parameters: All elements, adapters included.
        weight_bytes: All weights, adapters included.
        base_bytes: The weights without adapters: a reference model's size.
        trained_parameters: Elements that are trained.
        trained_bytes: The trained ones in bytes.
        trained_fp32: How many of the trained elements are fp32.
        element_bytes: Of the loaded weights, and so of activations and the key-value cache.
        trains_head: Whether the projection to the vocabulary is trained.
        adapters: Whether adapters are trained, which also makes the frozen model its own reference.
    """

    config: PreTrainedConfig
    parameters: int
    weight_bytes: int
    base_bytes: int
    trained_parameters: int
    trained_bytes: int
    trained_fp32: int
    element_bytes: int
    trains_head: bool
    adapters: bool


@dataclass(frozen=True)
class Workload:
    """How much is computed at once on one GPU.

    Args:
        rows: Completions of one forward and backward: `per_device_train_batch_size`.
        generated_rows: Completions generated at once: `rows` x `steps_per_generation`; 0 where another process
            generates.
        prompt_tokens: Tokens of the longest prompt.
        completion_tokens: `max_completion_length`.
        gradient_checkpointing: Whether layers are computed again in the backward.
        beta: TRL's KL coefficient; above 0 full fine-tuning needs a reference model.
        optim: transformers' name of the optimizer. Names with "8bit" have moments of one byte, "sgd" has none,
            all others count as AdamW.
        processes: GPUs; above 1 DDP keeps buckets.
    """

    rows: int
    generated_rows: int
    prompt_tokens: int
    completion_tokens: int
    gradient_checkpointing: bool = True
    beta: float = 0.0
    optim: str = "adamw_torch_fused"
    processes: int = 1

    @property
    def row_tokens(self) -> int:
        """Tokens of a full row."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class TrainingMemory:
    """Parts of one GPU's memory in bytes, and what one process offloads into the machine's (`host`)."""

    weights: int
    reference: int
    optimizer: int
    gradients: int
    activations: int
    generation: int
    context: int = CONTEXT_BYTES
    host: int = 0

    @property
    def need(self) -> Need:
        """What lasts; and what passes, of which activations and generation take turns."""
        lasting = self.weights + self.reference + self.optimizer + self.gradients + self.context
        return Need(lasting, max(self.activations, self.generation))


def describe_policy(
    config: PreTrainedConfig,
    dtype: torch.dtype = torch.float32,
    peft_config: PeftConfig | None = None,
    linear_bits: int | None = None,
    trust_remote_code: bool = False,
) -> Policy:
    """Build the policy on the meta device, where it takes no memory, adapters included, and count it.

    Args:
        config: The causal language model's configuration.
        dtype: Of the loaded weights.
        peft_config: What is trained; None for all weights.
        linear_bits: Bits a weight of quantized linear layers, the vocabulary's projection excepted. 4 bits count as
            4.5: each block of 64 weights has an fp32 scale.
        trust_remote_code: Whether the repository's own Python code may run.

    Raises:
        InputError: The adapter does not fit the model.
    """
    with whole_weights(), torch.device("meta"):
        base: PreTrainedModel = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=dtype, trust_remote_code=trust_remote_code
        )
        saved = _saved_by_quantization(base, linear_bits, dtype)
        base_bytes = _bytes(base.parameters()) - saved
        head = base.get_output_embeddings()
        model: nn.Module = base if peft_config is None else _with_adapter(base, peft_config)
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return Policy(
        config=config,
        parameters=_elements(parameters),
        weight_bytes=_bytes(parameters) - saved,
        base_bytes=base_bytes,
        trained_parameters=_elements(trained),
        trained_bytes=_bytes(trained),
        trained_fp32=_elements([parameter for parameter in trained if parameter.dtype == torch.float32]),
        element_bytes=dtype.itemsize,
        trains_head=head is not None and any(parameter is head.weight for parameter in trained),
        adapters=peft_config is not None,
    )


def _with_adapter(base: PreTrainedModel, peft_config: PeftConfig) -> nn.Module:
    try:
        return get_peft_model(base, copy.deepcopy(peft_config))
    except ValueError as error:
        raise InputError(
            f"The adapter does not fit the model: {str(error).rstrip('.')}. Check the lora_ options; "
            "lora_target_modules takes all-linear, or names of the model's layers."
        ) from error


def estimate_training(policy: Policy, work: Workload) -> TrainingMemory:
    """Estimate one GPU's memory in GRPO training."""
    return TrainingMemory(
        weights=policy.weight_bytes,
        reference=policy.base_bytes if work.beta > 0 and not policy.adapters else 0,
        optimizer=moment_bytes(policy, work.optim),
        gradients=policy.trained_bytes * (2 if work.processes > 1 else 1),
        activations=activation_bytes(policy, work),
        generation=generation_bytes(policy, work),
    )


def activation_bytes(policy: Policy, work: Workload) -> int:
    """Estimate what one forward and backward holds beside weights and gradients.

    For each token and layer autograd keeps 8 H + b (5 H + 5 Q + 4 I) bytes, b those of an element, H the hidden size,
    Q the queries' width, I the MLP's: both norms' fp32 inputs (2 x 4 H); the inputs of q, k, v, gate and up, a copy
    each under LoRA (5 H); queries, keys and values repeated to the queries' width, the attention's output and o's
    input (5 Q); gate, its activation, up and their product (4 I). With gradient checkpointing it keeps each layer's
    input (b H) and all of one layer. Beside them: one layer's gradients, b (2 H + 3 I), with an fp32 copy of the
    product for the adapter (4 I); the last norm, 4 H + b H; the log-probabilities, see `_log_prob_bytes`; and bf16
    copies of fp32 parameters that are trained, which autocast keeps.
    """
    width, size = layer_widths(policy.config), policy.element_bytes
    hidden, intermediate = width["hidden"], width["intermediate"]
    layers = policy.config.get_text_config().num_hidden_layers
    layer = 2 * FP32 * hidden + size * (5 * hidden + 5 * width["query"] + 4 * intermediate)
    kept = layers * size * hidden + layer if work.gradient_checkpointing else layers * layer
    backward = size * (2 * hidden + 3 * intermediate) + FP32 * intermediate
    last_norm = (FP32 + size) * hidden
    tokens = work.rows * work.row_tokens
    autocast = policy.trained_fp32 * torch.bfloat16.itemsize
    return tokens * (kept + backward + last_norm) + _log_prob_bytes(policy, work) + autocast


def generation_bytes(policy: Policy, work: Workload) -> int:
    """Estimate what generating holds beside the weights: the larger of its start and its end.

    At the start, one layer's forward over all prompts and their cache; at the end, the whole cache, one layer's once
    more (it is copied to grow), and the last token's logits in fp32. A row's cache is 2 x layers x key-value width x
    tokens elements.
    """
    text = policy.config.get_text_config()
    layer_cache = 2 * layer_widths(policy.config)["key"] * policy.element_bytes
    cache = text.num_hidden_layers * layer_cache
    start = work.prompt_tokens * (cache + forward_bytes_per_token(policy.config, policy.element_bytes))
    end = work.row_tokens * (cache + layer_cache)
    return work.generated_rows * (max(start, end) + SAMPLING_COPIES * FP32 * text.vocab_size)


def _log_prob_bytes(policy: Policy, work: Workload) -> int:
    """One tile of logits, the fp32 gradient of the completions' hidden states, and the head's where it is trained."""
    text = policy.config.get_text_config()
    tokens = work.rows * work.completion_tokens
    tile = min(tokens, TILE_TOKENS) * TILE_WORDS * policy.element_bytes
    head = text.vocab_size * text.hidden_size * FP32 if policy.trains_head else 0
    return tile + tokens * text.hidden_size * FP32 + head


def moment_bytes(policy: Policy, optim: str) -> int:
    """Return the bytes of the optimizer's moments; see `Workload.optim`."""
    if "8bit" in optim:
        return 2 * policy.trained_parameters
    return 0 if optim == "sgd" else 2 * policy.trained_bytes


def _saved_by_quantization(model: PreTrainedModel, bits: int | None, dtype: torch.dtype) -> int:
    if bits is None:
        return 0
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    size = 4.5 / 8 if bits == 4 else bits / 8
    return int(_elements([module.weight for module in linear]) * (dtype.itemsize - size))


def _elements(parameters: Sequence[torch.Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(parameters: Iterable[torch.Tensor]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
