"""Is what was saved the model that was trained? Asked after saving, and before anything is shared."""

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from peft import AutoPeftModelForCausalLM
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_hybrid.reward_model.loading import whole_weights


ADAPTER_CONFIG = "adapter_config.json"

PROBE = [{"role": "user", "content": "What is 12 + 30?"}]


class Trained(NamedTuple):
    """What the model in memory says, for comparison with the saved one.

    Attributes:
        logits: Of the probe's tokens, shape (T, V), float32 on the CPU.
        dtype: The number type of the model's weights.
        tolerance: Largest accepted ||saved - trained|| / ||trained||.
    """

    logits: torch.Tensor
    dtype: torch.dtype
    tolerance: float


def trained_logits(trainer: Any) -> Trained | None:
    """Ask the model in memory. Every process must call it: under ZeRO-3 a forward is everyone's work.

    Args:
        trainer: A `transformers.Trainer` after training.

    Returns:
        The same on every process; `None` for a quantized model, which a saved one without quantization does not equal.
    """
    model = trainer.model
    if getattr(model, "is_quantized", False):
        return None
    half = model.dtype != torch.float32 or trainer.args.bf16 or trainer.args.fp16
    logits = probe_logits(model, trainer.processing_class, trainer.accelerator.device)
    # In half precision a GPU and a CPU differ: bfloat16 is 3 % away from float32 after 22 layers.
    return Trained(logits, model.dtype, 0.1 if half else 1e-3)


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
        RuntimeError: There are no weights, a tensor is empty or not finite, the model does not load, or its logits
            are not those of the trained one.
    """
    check_weights(folder)
    with whole_weights(), warnings.catch_warnings():
        # What peft asks of a model is renamed in transformers 5.23.
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        try:
            loader: Any = AutoPeftModelForCausalLM if (folder / ADAPTER_CONFIG).exists() else AutoModelForCausalLM
            dtype = trained.dtype if trained else "auto"
            model = loader.from_pretrained(str(folder), dtype=dtype, trust_remote_code=trust_remote_code)
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
            logits = probe_logits(model, tokenizer)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise _not_sound(folder, f"it does not load: {error}") from error
    if not logits.isfinite().all():
        raise _not_sound(folder, "its logits are not finite")
    if trained is None:
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


def check_weights(folder: Path) -> None:
    """Look at every tensor in a saved model's own files.

    DeepSpeed ZeRO-3 has saved adapters whose tensors were all empty (trl#4416).

    Args:
        folder: A saved adapter or model.

    Raises:
        RuntimeError: There are no weights, or a tensor is empty or not finite.
    """
    count = 0
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - no dictionary
                    tensor = weights.get_tensor(name)
                    count += 1
                    if tensor.numel() == 0:
                        raise _not_sound(folder, f"{name!r} in {file.name} is empty")
                    if tensor.is_floating_point() and not tensor.isfinite().all():
                        raise _not_sound(folder, f"{name!r} in {file.name} is not finite")
        except SafetensorError as error:
            raise _not_sound(folder, f"{file.name} cannot be read: {error}") from error
    if count == 0:
        raise _not_sound(folder, "there are no weights in it")


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a saved adapter, or else of a saved model."""
    name = "adapter_model*.safetensors" if (folder / ADAPTER_CONFIG).exists() else "model*.safetensors"
    return sorted(folder.glob(name))


def base_model(folder: Path) -> tuple[str, str | None] | None:
    """Return the id or folder and the revision of the model that a saved adapter needs; `None` without adapter."""
    if not (folder / ADAPTER_CONFIG).exists():
        return None
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    return config["base_model_name_or_path"], config.get("revision")


def is_here(name: str, revision: str | None = None) -> bool:
    """Say whether a model is a folder or lies in the cache, so that loading it downloads nothing large."""
    return Path(name).is_dir() or isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


def _not_sound(folder: Path, reason: str) -> RuntimeError:
    return RuntimeError(
        f"The model saved in {str(folder)!r} cannot be shared: {reason}. Nothing was pushed. The checkpoints beside "
        "it are as they were: take the model from the newest one, or train again."
    )
