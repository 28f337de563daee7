"""How a recipe loads the policy."""

from typing import Any

from accelerate.utils import parse_flag_from_env
from trl import ModelConfig

from trl_hybrid.errors import InputError


def under_deepspeed(args: Any) -> bool:
    """Return whether DeepSpeed will train the policy: by the arguments, or by how accelerate was launched.

    accelerate's own state says so only once the trainer has made its accelerator.
    """
    return bool(args.deepspeed) or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")


def loading_arguments(args: Any, model: ModelConfig) -> dict[str, Any]:
    """Say how the policy is loaded: TRL's model options, and over them the trainer's own `model_init_kwargs`.

    Raises:
        InputError: The latter turn safetensors off.
    """
    own = args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}
    if not own.get("use_safetensors", True):
        raise InputError(
            "Only safetensors weights are read, as others may hold code, but model_init_kwargs has use_safetensors "
            f"{own['use_safetensors']!r}. Leave it out, and convert the weights: load and save them by transformers."
        )
    return {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        "use_safetensors": True,
        **own,
    }
