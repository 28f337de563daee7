"""What a run's settings ask for and this machine or transformers would refuse later: packages, ways of sampling."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from transformers.integrations import INTEGRATION_TO_CALLBACK
from trl import ModelConfig

from trl_hybrid.errors import InputError
from trl_hybrid.recipe.loading import under_deepspeed
from trl_hybrid.recipe.options import JudgeArguments
from trl_hybrid.training.config import HybridGRPOConfig


TRACKERS = {
    "azure_ml": ("azureml", "azureml-core"),
    "flyte": ("flytekit", "flytekit"),
    "tensorboard": ("tensorboard", "tensorboard"),
}
"""Module and distribution of a tracker, where they are not called as it is."""

BNB_OPTIMIZERS = ("adamw_bnb_8bit", "adamw_8bit", "ademamix", "lion_", "paged_", "rmsprop_bnb")


def check_sampling(args: HybridGRPOConfig) -> None:
    """Refuse what fails at the first generation only: transformers answers, if only the held-out problems.

    Args:
        args: How completions are sampled, and how often they are trained on.

    Raises:
        InputError: A setting is out of its range.
    """
    rules = {
        "temperature": (args.temperature > 0, "above 0, as the answers to a prompt must differ"),
        "top_k": (args.top_k >= 0, "0 or more; 0 for all tokens"),
        "top_p": (0 < args.top_p <= 1, "above 0 and at most 1; 1 for all tokens"),
        "min_p": (args.min_p is None or 0 <= args.min_p <= 1, "between 0 and 1; leave it out for all tokens"),
        "repetition_penalty": (args.repetition_penalty > 0, "above 0; 1 for none"),
        "num_iterations": (args.num_iterations >= 1, "1 or more"),
        "max_completion_length": ((args.max_completion_length or 0) >= 1, "1 or more"),
    }
    for name, (kept, rule) in rules.items():
        if not kept:
            raise InputError(f"{name} must be {rule}; got {getattr(args, name)}.")


def check_installed(args: Any, model: ModelConfig, judges: JudgeArguments | None = None) -> None:
    """Look for each package that a setting asks for, without importing it.

    Args:
        args: The trainer's settings: `report_to`, `use_vllm`, `use_liger_kernel`, `optim`, `deepspeed`.
        model: `load_in_4bit` and `load_in_8bit`.
        judges: The reward model's `load_in_...` and placement.

    Raises:
        InputError: A package is not installed, or `report_to` names an unknown tracker.
    """
    unknown = [name for name in args.report_to if name not in INTEGRATION_TO_CALLBACK]
    if unknown:
        raise InputError(
            f"report_to must be none, all or some of {', '.join(INTEGRATION_TO_CALLBACK)}; got {unknown[0]!r}."
        )
    for setting, module, distribution in _wanted(args, model, judges):
        if find_spec(module) is None:
            raise InputError(
                f"{setting} needs the package {distribution}, which is not installed. Install it (pip install "
                f"{distribution}), or leave {setting.split()[0]} out."
            )


def _wanted(args: Any, model: ModelConfig, judges: JudgeArguments | None) -> Iterator[tuple[str, str, str]]:
    """Yield each setting with the module and the distribution that it needs."""
    for name in args.report_to:
        if name != "kubeflow":  # a server's address in the environment, no package
            yield f"report_to {name}", *TRACKERS.get(name, (name, name))
    optimizer = str(getattr(args.optim, "value", args.optim))
    if optimizer.startswith(BNB_OPTIMIZERS):
        yield f"optim {optimizer}", "bitsandbytes", "bitsandbytes"
    flags = {
        "use_vllm": (getattr(args, "use_vllm", False), "vllm", "'trl[vllm]'"),
        "use_liger_kernel": (args.use_liger_kernel, "liger_kernel", "liger-kernel"),
        "deepspeed": (under_deepspeed(args), "deepspeed", "deepspeed"),
        "load_in_4bit": (model.load_in_4bit, "bitsandbytes", "bitsandbytes"),
        "load_in_8bit": (model.load_in_8bit, "bitsandbytes", "bitsandbytes"),
    }
    if judges is not None:
        zero3 = judges.reward_model_placement == "zero3"
        flags |= {
            "reward_model_placement zero3": (zero3, "deepspeed", "deepspeed"),
            "reward_model_load_in_4bit": (judges.reward_model_load_in_4bit, "bitsandbytes", "bitsandbytes"),
            "reward_model_load_in_8bit": (judges.reward_model_load_in_8bit, "bitsandbytes", "bitsandbytes"),
        }
    yield from ((name, module, distribution) for name, (on, module, distribution) in flags.items() if on)
