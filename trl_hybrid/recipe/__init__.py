"""What a recipe does around training, so that a recipe is short. Importing this package is cheap."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from trl_hybrid.recipe.defaults import RECIPE_DEFAULTS
    from trl_hybrid.recipe.grpo import GRPORun
    from trl_hybrid.recipe.options import reward_model_settings, verifier_settings
    from trl_hybrid.recipe.reward_model import RewardModelRun
    from trl_hybrid.recipe.reward_trainer import RewardModelTrainer, score_adapter_config
    from trl_hybrid.recipe.run import adapter_config
    from trl_hybrid.recipe.sft import ColdStartTrainer, SFTRun

_HOMES = {
    "ColdStartTrainer": "sft",
    "GRPORun": "grpo",
    "RECIPE_DEFAULTS": "defaults",
    "RewardModelRun": "reward_model",
    "RewardModelTrainer": "reward_trainer",
    "SFTRun": "sft",
    "adapter_config": "run",
    "reward_model_settings": "options",
    "score_adapter_config": "reward_trainer",
    "verifier_settings": "options",
}

__all__ = [
    "RECIPE_DEFAULTS",
    "ColdStartTrainer",
    "GRPORun",
    "RewardModelRun",
    "RewardModelTrainer",
    "SFTRun",
    "adapter_config",
    "reward_model_settings",
    "score_adapter_config",
    "verifier_settings",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
