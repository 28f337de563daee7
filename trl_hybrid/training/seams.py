"""What is used of TRL's private parts, and the versions in which all of it was seen to be there.

A release that renames one of these would leave an override uncalled, and train on rewards that nobody filled in.
`TestSeam` in `tests/training/test_trainer.py` shows what is relied on of each.
"""

import inspect
from importlib.metadata import version
from typing import Any

from trl import GRPOTrainer
from trl.trainer import utils

from trl_hybrid.errors import InputError


TESTED = {"transformers": "5.24.0", "trl": "1.16.0"}
"""The newest versions that all tests passed with; those of `constraints.txt`."""

HANDED_ON = {
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("inputs",),
    "_generate_single_turn": ("prompt_ids",),
    "_get_per_token_logps_and_entropies": (
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
        "compute_aux_loss",
    ),
    "_prepare_inputs": ("generation_batch",),
}
"""Methods of `GRPOTrainer` that are overridden, with their first parameters; further arguments are handed on."""

METHODS = {
    # overridden
    "_save_rng_state": ("output_dir",),
    "get_batch_samples": ("epoch_iterator", "num_batches", "device"),
    "save_model": ("output_dir", "_internal_call"),
    "train": ("resume_from_checkpoint",),
    # called
    "_generate": ("prompts",),
    "_log_completion_extra": ("column", "values"),
    "_log_metric": ("name", "value"),
    "_save_checkpoint": ("model", "trial"),
}
"""Methods of `GRPOTrainer`, each with the arguments that it is given here; further parameters must have defaults."""

ATTRIBUTES = ("_buffered_inputs", "_logs", "_metrics", "_step", "_tokenizer")
"""What a `GRPOTrainer` holds once it is built."""

SAMPLER_ATTRIBUTES = ("generator", "num_samples", "shuffle")
"""What TRL's `RepeatSampler` holds."""


def check_methods(trainer_class: type = GRPOTrainer) -> None:
    """Refuse a TRL whose trainer lacks a method, or takes something else there.

    Args:
        trainer_class: TRL's trainer.

    Raises:
        InputError: Names the methods, the versions tested and the command that installs them.
    """
    lacking = [wanted for wanted in (HANDED_ON | METHODS).items() if not _takes(trainer_class, *wanted)]
    _refuse([f"{name}({', '.join(given)})" for name, given in lacking])


def check_attributes(trainer: Any) -> None:
    """Refuse a TRL whose built trainer, or whose sampler, lacks an attribute.

    Args:
        trainer: A built `GRPOTrainer`.

    Raises:
        InputError: As in `check_methods`.
    """
    sampler_class = getattr(utils, "RepeatSampler", None)
    sampler = None if sampler_class is None else sampler_class([0], mini_repeat_count=1)
    lacking = [name for name in ATTRIBUTES if not hasattr(trainer, name)]
    _refuse([*lacking, *(f"RepeatSampler.{name}" for name in SAMPLER_ATTRIBUTES if not hasattr(sampler, name))])


def _takes(owner: type, name: str, given: tuple[str, ...]) -> bool:
    """Say whether a method is there, takes `given` first and in this order, and needs nothing that it is not given.

    One that takes whatever it gets, as a wrapper that somebody put around it, counts.
    """
    method = getattr(owner, name, None)
    if method is None:
        return False
    _, *parameters = inspect.signature(method).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    first = tuple(p.name for p in named[: len(given)])
    needed = [p.name for p in named[len(given) :] if p.default is p.empty]
    takes_first = first == given or (len(named) < len(parameters) and first == given[: len(first)])
    return takes_first and (name in HANDED_ON or not needed)


def _refuse(missing: list[str]) -> None:
    if not missing:
        return
    installed = ", ".join(f"{package} {version(package)}" for package in TESTED)
    tested = ", ".join(f"{package} {number}" for package, number in TESTED.items())
    pins = " ".join(f"'{package}=={number}'" for package, number in TESTED.items())
    raise InputError(
        f"HybridGRPOTrainer changes TRL's GRPOTrainer from within, and the installed one has no {', '.join(missing)}. "
        f"Installed: {installed}; tested: {tested}. Run: pip install {pins}"
    )
