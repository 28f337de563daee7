"""A recipe's command line, over a flat YAML file, over the recipe's defaults, over TRL's."""

import difflib
import os
import re
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, cast

import yaml
from trl import TrlParser

from trl_hybrid.errors import InputError


SHORT_HELP = (
    "model_name_or_path", "reward_model_name_or_path", "dataset_name", "dataset_config", "reward_mode",
    "reward_model_placement", "system_prompt", "max_rows", "max_test_rows", "output_dir", "overwrite_output_dir",
    "resume_from_checkpoint", "max_steps", "num_generations", "per_device_train_batch_size",
    "gradient_accumulation_steps", "learning_rate", "temperature", "max_completion_length", "use_peft", "push_to_hub",
    "report_to",
)  # fmt: skip

CPU_DEFAULTS = {"use_cpu": True, "bf16": False, "dtype": "float32", "gradient_checkpointing": False}
"""Over a recipe's own defaults where it runs on a CPU, which computes bfloat16 slowly and has memory enough."""

NO_BFLOAT16_DEFAULTS = {"bf16": False, "dtype": "float32"}
"""The same on a GPU that emulates bfloat16, such as a T4.

Not float16: a model trained in bfloat16 can leave its range, and then samples from NaN. `--fp16 true` asks for it,
with weights in float32, which its gradient scaler wants of those that are trained.
"""


def parse_arguments(
    dataclasses: Sequence[type],
    defaults: dict[str, Any],
    args: Sequence[str] | None = None,
    short_help: Sequence[str] = SHORT_HELP,
    fit_machine: bool = False,
    **parser_kwargs: Any,
) -> tuple[Any, ...]:
    """Parse the command line over a flat YAML file (`--config`) over a recipe's defaults.

    Args:
        dataclasses: One for each object to return.
        defaults: A recipe's own values in place of the dataclasses'.
        args: Command line; `sys.argv` without it.
        short_help: Options that `--help` shows.
        fit_machine: Whether what suits this machine goes over `defaults`: the run is to be here.
        **parser_kwargs: For [`trl.TrlParser`], as `description` and `epilog`.

    Returns:
        One object a dataclass.

    Raises:
        InputError: An option or a key of the YAML file that no dataclass has, a file that cannot be read, or settings
            that a dataclass refuses.
        SystemExit: After `--help` (what a first run needs) or `--help_all`.
    """
    parser = TrlParser(cast(Any, dataclasses), allow_abbrev=False, **parser_kwargs)
    parser.set_defaults_with_config(**defaults)
    # A wrong value is not worth the names of hundreds of options.
    parser.usage = "python RECIPE.py [--config FILE] [--OPTION VALUE ...]   (--help lists the options)"
    known = {action.dest for action in parser._actions}
    args = [part for arg in (sys.argv[1:] if args is None else args) for part in _split_config(arg)]
    if "--help" in args or "-h" in args:
        sys.stdout.write(_short_help(parser, short_help))
        raise SystemExit(0)
    if "--help_all" in args:
        parser.print_help()
        raise SystemExit(0)
    settings = _take_config(parser, args, known)
    parser.set_defaults_with_config(**settings)
    if fit_machine:
        fitting = _machine_defaults(parser.parse_known_args(args)[0].use_cpu)
        parser.set_defaults_with_config(**{name: fitting[name] for name in fitting.keys() - settings.keys()})
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(args, return_remaining_strings=True)
    except ValueError as error:  # the libraries' settings refuse by it what does not go together
        raise InputError(str(error)) from error
    if unknown:
        option = str(unknown[0])
        raise InputError(f"Unknown option {option!r}.{_hint(option, known, '--')} `--help_all` lists all options.")
    return tuple(parsed)


def _machine_defaults(use_cpu: bool) -> dict[str, Any]:
    """Return what goes over a recipe's own defaults here."""
    # Heavy, and here only: help does without.
    import torch
    from accelerate.utils import parse_flag_from_env

    from trl_hybrid.policy.source import has_bfloat16

    if use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
        return CPU_DEFAULTS
    return {} if has_bfloat16() else NO_BFLOAT16_DEFAULTS


def _split_config(arg: str) -> list[str]:
    """TrlParser knows `--config FILE` only."""
    return arg.split("=", 1) if arg.startswith("--config=") else [arg]


def _short_help(parser: TrlParser, names: Sequence[str]) -> str:
    """Show the options that a first run needs, one line each, out of the hundreds that TRL adds."""
    lines = [
        parser.description or "",
        "",
        "  --config FILE: a flat YAML file of any of these; the command line goes over it",
    ]
    actions = {action.dest: action for action in parser._actions}
    actions[
        "resume_from_checkpoint"
    ].help = "Go on from `latest`, the newest whole checkpoint in output_dir, or a path"
    for name in (*names, *(name for name in actions if name.startswith("hybrid_"))):
        first_sentence = re.split(r"(?<=[a-z\])}])[.;] ", str(actions[name].help) % {"default": ""})[0].rstrip(". ")
        lines.append(f"  --{name} [{_short(actions[name].default)}]: {first_sentence}")
    return "\n".join([*lines, "", parser.epilog or "", "--help_all lists every option, TRL's included.", ""])


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"...{text[-37:]}"


def _take_config(parser: TrlParser, args: list[str], known: set[str]) -> dict[str, Any]:
    """Take `--config FILE` out of the arguments, and read it: TRL opens it in the locale's encoding.

    As with TRL, `env` in it sets environment variables.
    """
    if "--config" not in args:
        return {}
    place = args.index("--config")
    if place + 1 == len(args):
        raise InputError("--config needs the name of a YAML file after it.")
    path = Path(args[place + 1])
    del args[place : place + 2]
    if "--config" in args:
        raise InputError("--config takes one YAML file, got a second one. Put the settings of both into one file.")
    settings = _read_yaml(path, known)
    os.environ.update({name: str(value) for name, value in (settings.pop("env", None) or {}).items()})
    texts = {action.dest for action in parser._actions if action.type is str or _names_texts(action.choices)}
    # `run_name: 20261125` and `save_strategy: no` are texts: as they are written, and not what YAML takes them for.
    written = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    plain = (bool, int, float, date)
    misread = (name for name, value in settings.items() if name in texts and isinstance(value, plain))
    return settings | {name: written[name] for name in misread}


def _names_texts(choices: Any) -> bool:
    return choices is not None and all(isinstance(choice, str) for choice in choices)


def _read_yaml(path: Path, known: set[str]) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"The configuration file {str(path)!r} does not exist (looked in {Path.cwd()}).")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"The configuration file {str(path)!r} is not valid YAML: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The configuration file {str(path)!r} must be in UTF-8: {error}. Save it so.") from error
    if not isinstance(content, dict):
        raise InputError(f"The configuration file {str(path)!r} must hold `key: value` lines, got {content!r}.")
    for key in content:
        if key not in known and key != "env":
            hint = _hint(str(key), known)
            raise InputError(f"Unknown key {key!r} in {str(path)!r}.{hint} `--help_all` lists all keys.")
    if not isinstance(content.get("env") or {}, dict):
        raise InputError(f"`env` in {str(path)!r} must hold `VARIABLE: value` lines, got {content['env']!r}.")
    return content


def _hint(name: str, known: set[str], prefix: str = "") -> str:
    """Name the settings that were perhaps meant."""
    plain = name.lstrip("-").partition("=")[0].replace("-", "_")
    near = [f"{prefix}{found}" for found in difflib.get_close_matches(plain, known, n=3)]
    return f" Did you mean {' or '.join(near)}?" if near else ""
