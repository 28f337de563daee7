"""The recipe's settings, for commands that look at a run before it is started."""

from collections.abc import Sequence
from typing import Any


def parse_recipe_options(config: str | None, options: Sequence[str]) -> tuple[Any, ...]:
    """Read the YAML file and the options as the training recipe does.

    Returns:
        `TaskArguments`, `JudgeArguments`, `HybridGRPOConfig` and `ModelConfig`.

    Raises:
        InputError: A key of the YAML file that the recipe does not know, a file that cannot be read, or settings that
            the recipe refuses.
        SystemExit: An option that the recipe does not know.
    """
    import torch
    from trl import ModelConfig

    from trl_hybrid.recipe.defaults import RECIPE_DEFAULTS
    from trl_hybrid.recipe.options import JudgeArguments, TaskArguments
    from trl_hybrid.recipe.parsing import parse_arguments
    from trl_hybrid.training.config import HybridGRPOConfig
    from trl_hybrid.training.reward_columns import check_aggregation

    # A machine without a GPU may look at a run for one, but refuses settings that need one.
    here = torch.cuda.is_available()
    elsewhere = {} if here else {"use_cpu": True, "bf16": True}
    parsed = parse_arguments(
        (TaskArguments, JudgeArguments, HybridGRPOConfig, ModelConfig),
        {**RECIPE_DEFAULTS, **elsewhere},
        [*(["--config", config] if config else []), *options],
        fit_machine=here,
    )
    check_aggregation(parsed[2])
    return parsed
