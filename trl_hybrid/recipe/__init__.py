"""What a recipe does around training, so that it can be read in a minute.

Importing this package is cheap: torch, transformers and trl load with the first name that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from trl_hybrid.evaluation.cold_start import cold_start_examples
    from trl_hybrid.recipe.cold_start_run import ColdStartRun, ColdStartTrainer
    from trl_hybrid.recipe.defaults import COLD_START_DEFAULTS, RECIPE_DEFAULTS
    from trl_hybrid.recipe.grpo_run import GRPORun
    from trl_hybrid.recipe.options import reward_model_settings

_HOMES = {
    "COLD_START_DEFAULTS": "trl_hybrid.recipe.defaults",
    "ColdStartRun": "trl_hybrid.recipe.cold_start_run",
    "ColdStartTrainer": "trl_hybrid.recipe.cold_start_run",
    "GRPORun": "trl_hybrid.recipe.grpo_run",
    "RECIPE_DEFAULTS": "trl_hybrid.recipe.defaults",
    "cold_start_examples": "trl_hybrid.evaluation.cold_start",
    "reward_model_settings": "trl_hybrid.recipe.options",
}

__all__ = [
    "COLD_START_DEFAULTS",
    "RECIPE_DEFAULTS",
    "ColdStartRun",
    "ColdStartTrainer",
    "GRPORun",
    "cold_start_examples",
    "reward_model_settings",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
