"""Is what was saved the model that was trained? Asked after saving, and before anything is shared."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from peft import AutoPeftModelForCausalLM
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_hybrid.errors import InputError
from trl_hybrid.hub.origin import commit_of
from trl_hybrid.models.files import ADAPTER_CONFIG, weight_files
from trl_hybrid.reward_model import RewardModel
from trl_hybrid.reward_model.loading import whole_weights
from trl_hybrid.runs.folder import read_json


PROBE = [{"role": "user", "content": "What is 12 + 30?"}]

LORA_MATRIX = re.compile(r"\.lora_[AB]\.default\.weight$")
NONE: Mapping[str, torch.Tensor] = MappingProxyType({})


class Trained(NamedTuple):
    """What the model in memory says, for comparison with the saved one.

    Attributes:
        logits: Of the probe's tokens, shape (T, V), float32 on the CPU; `None` for a quantized model, which a saved
            one without quantization does not equal.
        dtype: The number type of the model's weights, or "auto".
        tolerance: Largest accepted ||saved - trained|| / ||trained||.
        lora: As [`lora_values`]. In half precision an adapter that learned little, or nothing, is within the tolerance
            of the logits.
    """

    logits: torch.Tensor | None
    dtype: torch.dtype | str
    tolerance: float
    lora: Mapping[str, torch.Tensor] = NONE


def trained_logits(trainer: Any) -> Trained:
    """Ask the model in memory. Every process must call it: under ZeRO-3 a forward is everyone's work.

    Args:
        trainer: A `transformers.Trainer` after training.

    Returns:
        The same on every process.
    """
    model = trainer.model
    lora = lora_values(model)
    if getattr(model, "is_quantized", False):
        return Trained(None, "auto", 0.0, lora)
    # Not the trainer's arguments alone decide: `accelerate launch --mixed_precision` does too.
    half = model.dtype != torch.float32 or trainer.accelerator.mixed_precision != "no"
    logits = probe_logits(model, trainer.processing_class, trainer.accelerator.device)
    # In half precision a GPU and a CPU differ: bfloat16 is 3 % away from float32 after 22 layers.
    return Trained(logits, model.dtype, 0.1 if half else 1e-3, lora)


def lora_values(model: Any) -> dict[str, torch.Tensor]:
    """Return some values of each LoRA matrix, by its name in a saved adapter; every process must call it."""
    values = {}
    for name, weight in model.named_parameters():
        if LORA_MATRIX.search(name):
            with _whole(weight):
                values[name.replace(".default.", ".")] = _some(weight.detach())
    return values


def _whole(weight: Any) -> AbstractContextManager[Any]:
    """Gather a weight that ZeRO-3 has sharded."""
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    import deepspeed  # of an extra

    return deepspeed.zero.GatheredParameters([weight])


def _some(weight: torch.Tensor) -> torch.Tensor:
    """Return about a thousand values, evenly spaced, float32 on the CPU; all where there are fewer."""
    flat = weight.flatten()
    return flat[:: max(1, flat.numel() // 1000)].float().cpu().clone()


@torch.no_grad()
def probe_logits(model: Any, tokenizer: Any, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the logits of one short prompt, shape (T, V), float32 on the CPU; the model's mode stays as it was."""
    inputs = tokenizer.apply_chat_template(PROBE, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    was_training = model.training
    model.eval()
    try:
        output = model(
            input_ids=inputs["input_ids"].to(device),
            attention_mask=inputs["attention_mask"].to(device),
            use_cache=False,
        )
    finally:
        model.train(was_training)
    return output.logits[0].float().cpu()


def check_saved_model(folder: Path, trained: Trained | None = None, trust_remote_code: bool = False) -> None:
    """Check that what lies in a folder is whole, loads, and is the model that was trained.

    Args:
        folder: A saved adapter, or a saved model, with its tokenizer.
        trained: What the model in memory said; without it the saved one need only give finite logits.
        trust_remote_code: Run code that the base model's repository holds.

    Raises:
        InputError: There are no weights, a tensor is empty or not finite, the model does not load, or its LoRA
            matrices or its logits are not those of the trained one.
    """
    check_weights(folder, trained.lora if trained else NONE)
    with whole_weights():
        try:
            loader: Any = AutoPeftModelForCausalLM if (folder / ADAPTER_CONFIG).exists() else AutoModelForCausalLM
            dtype = trained.dtype if trained else "auto"
            model = loader.from_pretrained(
                str(folder), dtype=dtype, trust_remote_code=trust_remote_code, use_safetensors=True
            )
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
            logits = probe_logits(model, tokenizer)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise _not_sound(folder, f"it does not load: {error}") from error
    if not logits.isfinite().all():
        raise _not_sound(folder, "its logits are not finite")
    if trained is None or trained.logits is None:
        return
    if logits.shape != trained.logits.shape:
        raise _not_sound(folder, f"its logits have the shape {tuple(logits.shape)}, not {tuple(trained.logits.shape)}")
    difference = float((logits - trained.logits).norm() / trained.logits.norm())
    if not difference <= trained.tolerance:
        raise _not_sound(
            folder,
            f"its logits differ from the trained model's by {difference:.2g} of their norm (at most "
            f"{trained.tolerance:g})",
        )


def check_saved_reward_model(folder: Path, trust_remote_code: bool = False) -> None:
    """Check that what lies in a folder is a whole reward model that scores.

    Raises:
        InputError: There are no weights, a tensor is empty or not finite, or the model does not load or score.
    """
    check_weights(folder)
    RewardModel(str(folder), trust_remote_code=trust_remote_code, system_prompt=None)


def check_weights(folder: Path, lora: Mapping[str, torch.Tensor] = NONE) -> None:
    """Look at every tensor in a saved model's own files.

    DeepSpeed ZeRO-3 has saved adapters whose tensors were all empty (trl#4416).

    Args:
        folder: A saved adapter or model.
        lora: What [`lora_values`] said of the model in memory.

    Raises:
        InputError: There are no weights, or a tensor is empty, not finite, missing or not the one in memory.
    """
    found = set()
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - no dictionary
                    found.add(name)
                    fault = _fault(weights.get_tensor(name), lora.get(name))
                    if fault:
                        raise _not_sound(folder, f"{name!r} in {file.name} is {fault}")
        except SafetensorError as error:
            raise _not_sound(folder, f"{file.name} cannot be read: {error}") from error
    if not found:
        raise _not_sound(folder, "there are no weights in it")
    if missing := lora.keys() - found:
        raise _not_sound(folder, f"{min(missing)!r} is missing in it")


def _fault(saved: torch.Tensor, trained: torch.Tensor | None) -> str | None:
    if saved.numel() == 0:
        return "empty"
    if saved.is_floating_point() and not saved.isfinite().all():
        return "not finite"
    if trained is None:
        return None
    values = _some(saved)
    # It may be saved in bfloat16, which has 8 bits, or in float16, whose smallest steps are 6e-8 apart.
    same = values.shape == trained.shape and torch.allclose(values, trained, rtol=0.01, atol=1e-7)
    return None if same else "not what was trained"


def base_model(folder: Path) -> tuple[str, str | None] | None:
    """Return the id or folder and the revision of the model that a saved adapter needs; `None` without adapter."""
    config = read_json(folder / ADAPTER_CONFIG)
    return (config["base_model_name_or_path"], config.get("revision")) if config else None


def is_here(name: str, revision: str | None = None) -> bool:
    """Say whether a model is a folder or lies in the cache, so that loading it downloads nothing large."""
    return Path(name).is_dir() or commit_of(name, revision) is not None


def _not_sound(folder: Path, reason: str) -> InputError:
    return InputError(
        f"The model saved in {str(folder)!r} cannot be shared: {reason}. Nothing was pushed. The checkpoints beside "
        "it are as they were: take the model from the newest one, or train again."
    )
