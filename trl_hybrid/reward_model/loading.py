"""Loading a reward model whole, from the Hub or a folder, and refusing what is not a one-label reward model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations import deepspeed

from trl_hybrid.errors import InputError


class RewardModelNotFoundError(OSError):
    """The reward model's files could not be had: wrong id, no network, no permission or no such folder."""


@dataclass(frozen=True)
class Source:
    """Where a reward model comes from.

    Attributes:
        name: Hub id or local folder.
        revision: Branch, tag or commit on the Hub, None for the default branch.
        trust_remote_code: Whether the repository's own Python code may run.
    """

    name: str
    revision: str | None = None
    trust_remote_code: bool = False

    def keywords(self) -> dict[str, Any]:
        """Return the keyword arguments that every `from_pretrained` takes."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


def load_config(source: Source) -> PreTrainedConfig:
    """Load the configuration, and refuse it unless it says one label."""
    name = Path(source.name)
    if (name.is_absolute() or source.name.startswith((".", "~"))) and not name.is_dir():
        raise RewardModelNotFoundError(
            f"The reward model {source.name!r} looks like a local folder, but there is none. Check the path, or give "
            "a Hub id such as 'nvidia/AceMath-7B-RM'."
        )
    if name.is_dir() and not (name / "config.json").is_file():
        raise RewardModelNotFoundError(
            f"A reward model's folder holds a config.json, but {source.name!r} has none. Give the folder that "
            "`save_pretrained` wrote; merge an adapter into its base model first."
        )
    with _named_failure(source, "its configuration"):
        config = AutoConfig.from_pretrained(source.name, **source.keywords())
    architectures = config.architectures or []
    if any(architecture.endswith("ForCausalLM") for architecture in architectures):
        raise InputError(
            f"A reward model is a sequence classifier with a trained score head, but {source.name!r} is a causal "
            f"language model ({architectures[0]}): its head would be random. Give a reward model such as "
            "'nvidia/AceMath-7B-RM'."
        )
    if config.num_labels != 1:
        raise InputError(
            f"A reward model has one label, but {source.name!r} has num_labels={config.num_labels} "
            f"({', '.join(architectures) or 'no architecture named'}). Give a model trained with num_labels=1."
        )
    return config


def longest_row(config: PreTrainedConfig, max_length: int | None = None) -> int | None:
    """Return the most tokens of a row: what is asked for, and what the model has positions for; None for no limit."""
    limits = max_length, getattr(config.get_text_config(), "max_position_embeddings", None)
    return min((limit for limit in limits if limit is not None), default=None)


def checkpoint_dtype(config: PreTrainedConfig) -> torch.dtype | None:
    """Return the type of the stored weights, None where the configuration does not say."""
    return config.dtype if isinstance(config.dtype, torch.dtype) else None


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """Load the reward model's own tokenizer."""
    with _named_failure(source, "its tokenizer"):
        return AutoTokenizer.from_pretrained(source.name, **source.keywords())


def load_model(
    source: Source, dtype: str | torch.dtype, device: torch.device, quantization_config: Any = None
) -> PreTrainedModel:
    """Load the weights onto one device, in eval mode and without gradients.

    To be called inside `whole_weights` or `sharded_weights`. Only safetensors files are read.
    """
    placement: dict[str, Any] = {} if device.type == "cpu" else {"device_map": {"": device}}
    if quantization_config is not None:
        placement["quantization_config"] = quantization_config
    with _named_failure(source, "its weights (safetensors)"):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source.name, dtype=dtype, use_safetensors=True, output_loading_info=True, **placement, **source.keywords()
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise InputError(
            f"A reward model's checkpoint must hold every weight, but {source.name!r} lacks {len(missing)}, which "
            f"would be random: {', '.join(missing[:3])}. Give the folder of a trained sequence classifier, "
            "not of a causal language model."
        )
    return model.eval().requires_grad_(False)


def split_model(model: PreTrainedModel) -> tuple[PreTrainedModel, nn.Linear]:
    """Return the transformer's body and its score head, which maps a hidden state (H,) to one number."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != 1:
        raise InputError(
            f"A reward model needs a linear head `score` with one output, but {type(model).__name__} has {head!r}. "
            "Decoder reward models such as Qwen2, Qwen3, Llama, Mistral and Gemma have one."
        )
    body = model.base_model
    if body is model or not isinstance(body, PreTrainedModel):
        raise InputError(
            f"A reward model needs a body beside its head, but {type(model).__name__} names none "
            "(`base_model_prefix`)."
        )
    return body, head


@contextmanager
def whole_weights() -> Iterator[None]:
    """Keep the policy's ZeRO-3 or FSDP settings from sharding or emptying what is loaded inside."""
    with _deepspeed_settings(None):
        yield


@contextmanager
def sharded_weights(settings: dict[str, Any]) -> Iterator[None]:
    """Shard what is loaded inside over all processes, by the reward model's own DeepSpeed settings."""
    with _deepspeed_settings(settings):
        yield


@contextmanager
def _deepspeed_settings(settings: dict[str, Any] | None) -> Iterator[None]:
    """Put other settings in the place that `from_pretrained` looks at, and the policy's back afterwards."""
    reference = deepspeed._hf_deepspeed_config_weak_ref
    ram_efficient = os.environ.pop("FSDP_CPU_RAM_EFFICIENT_LOADING", None)
    deepspeed.unset_hf_deepspeed_config()
    # Making it puts it in the place; it is held weakly there.
    held = None if settings is None else deepspeed.HfDeepSpeedConfig(settings)
    try:
        yield
    finally:
        del held
        deepspeed.unset_hf_deepspeed_config()
        own = None if reference is None else reference()
        if own is not None:
            deepspeed.set_hf_deepspeed_config(own)
        if ram_efficient is not None:
            os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = ram_efficient


@contextmanager
def _named_failure(source: Source, part: str) -> Iterator[None]:
    """Say which reward model could not be loaded, and what to do without a network."""
    try:
        yield
    except OSError as error:
        where = "the folder" if Path(source.name).is_dir() else "the Hub and the local cache"
        revision = f" at revision {source.revision!r}" if source.revision else ""
        raise RewardModelNotFoundError(
            f"The reward model {source.name!r}{revision} could not be loaded. Looked for {part} in {where}. Check "
            "the id, the network and, for a gated model, `hf auth login`. To go on offline, fetch it once where there "
            f"is a network (`hf download {source.name}`) and give the folder as the reward model, with "
            f"HF_HUB_OFFLINE=1. The cause: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
