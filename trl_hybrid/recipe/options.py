"""The command line of a training recipe: which data, which judges; the rest is TRL's."""

import difflib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from trl import DatasetMixtureConfig, ScriptArguments, TrlParser
from trl.scripts.utils import DatasetConfig

from trl_hybrid.errors import InputError
from trl_hybrid.verifier.verifier import Method


SHORT_HELP = (
    "model_name_or_path",
    "reward_model_name_or_path",
    "dataset_name",
    "dataset_config",
    "reward_mode",
    "reward_model_placement",
    "system_prompt",
    "max_rows",
    "max_test_rows",
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "max_steps",
    "num_generations",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "temperature",
    "max_completion_length",
    "use_peft",
    "push_to_hub",
    "report_to",
)


@dataclass
class TaskArguments(ScriptArguments, DatasetMixtureConfig):
    """Which problems to train on and how they are put to the policy.

    Raises:
        InputError: An entry of `datasets` has a key that TRL's `DatasetConfig` does not know, or no `path`.
    """

    dataset_name: str = field(  # pyright: ignore[reportIncompatibleVariableOverride] - never None here
        default="data/dummy_math_tasks.jsonl",
        metadata={
            "help": "Problems with gold answers: an id on the Hub, a folder with a file for each split, or a .json, "
            ".jsonl, .csv or .parquet file. Columns are found by the table in docs/data.md. `datasets` goes before it."
        },
    )
    dataset_prompt_column: str | None = field(
        default=None,
        metadata={"help": "Column with the problem; a field inside a column as extra_info.question."},
    )
    dataset_solution_column: str | None = field(
        default=None,
        metadata={"help": "Column with the gold answer; a field inside a column as reward_model.ground_truth."},
    )
    system_prompt: str | None = field(
        default=None,
        metadata={
            "help": "System message put before each problem. It should ask for the answer in \\boxed{}, where the "
            "verifier and the reward model look for it."
        },
    )
    max_question_chars: int | None = field(
        default=None, metadata={"help": "Leave out problems with more characters than this."}
    )
    max_rows: int | None = field(default=None, metadata={"help": "Train on at most so many problems."})
    max_test_rows: int | None = field(
        default=None,
        metadata={
            "help": "Measure held-out accuracy on at most so many problems; 0 for no measurement. By default 256, or "
            "so few that measuring before and after takes no more answers than training, but at least 16."
        },
    )
    eval_accuracy_steps: int | None = field(
        default=None,
        metadata={"help": "Measure held-out accuracy every so many steps too; by default before and after training."},
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Write over the run in output_dir; it is kept until the new one has a checkpoint."},
    )

    def __post_init__(self) -> None:
        """Check the entries of `datasets`, which TRL takes as they are."""
        known = [option.name for option in fields(DatasetConfig)]
        for entry in self.datasets:
            if isinstance(entry, dict) and ("path" not in entry or not set(entry) <= set(known)):
                raise InputError(
                    f"Each entry of `datasets` needs `path` and may have {', '.join(known[1:])}; got {entry}."
                )
        self.datasets = list(self.datasets)  # TRL puts objects into the caller's own list
        super().__post_init__()


@dataclass
class JudgeArguments:
    """The verifier and the reward model."""

    reward_model_name_or_path: str = field(
        default="nvidia/AceMath-7B-RM",
        metadata={"help": "Reward model: a sequence classification model with one label, by id on the Hub or folder."},
    )
    reward_model_revision: str | None = field(
        default=None, metadata={"help": "The reward model's own branch, tag or commit."}
    )
    reward_model_trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code from the reward model's repository."}
    )
    reward_model_dtype: str | None = field(
        default=None,
        metadata={
            "help": "Number type of the reward model's body; by default bfloat16 on a GPU and float32 on a CPU. Its "
            "score head is always float32.",
            "choices": ["bfloat16", "float32"],
        },
    )
    reward_model_system_prompt: str | None = field(
        default=None,
        metadata={
            "help": "The reward model's own system message. Known models have theirs; the policy's never reaches it."
        },
    )
    reward_model_max_length: int | None = field(
        default=None,
        metadata={"help": "Longest row in tokens; by default what the model's positions allow. The end is kept."},
    )
    reward_model_token_budget: int | None = field(
        default=None,
        metadata={
            "help": "Most computed tokens of one forward of the reward model; by default 16384 on a GPU (8192 "
            "streamed) and 1024 on a CPU."
        },
    )
    reward_model_placement: str = field(
        default="auto",
        metadata={
            "help": "Where the reward model's weights live: resident (on the GPU), streamed (in host memory, a layer "
            "at a time on the GPU), zero3 (in host memory, shared by all processes, under DeepSpeed), cpu (scored on "
            "the CPU), or auto: the first of resident, streamed and cpu that fits beside the policy.",
            "choices": ["auto", "resident", "streamed", "zero3", "cpu"],
        },
    )
    reward_model_deepspeed_config: str | None = field(
        default=None,
        metadata={
            "help": "With zero3: the reward model's own DeepSpeed configuration, a JSON file; by default "
            "accelerate_configs/deepspeed/rm_zero3_offload.json."
        },
    )
    reward_model_load_in_8bit: bool = field(
        default=False, metadata={"help": "Quantize the resident reward model to 8 bits (needs bitsandbytes)."}
    )
    reward_model_load_in_4bit: bool = field(
        default=False, metadata={"help": "Quantize the resident reward model to 4 bits (needs bitsandbytes)."}
    )
    verifier_method: str = field(
        default="math_verify",
        metadata={
            "help": "What the verifier reads and how it compares: math_verify (every form of answer, by string, "
            "number and algebra), boxed (the last box, as a string), strict (the number behind ####) or flexible (the "
            "last number).",
            "choices": list(get_args(Method)),
        },
    )
    verifier_correct_reward: float = field(
        default=1.0,
        metadata={"help": "What a right answer gets; the hybrid reward asks only whether it is right."},
    )
    verifier_format_reward: float = field(
        default=0.0,
        metadata={
            "help": "What a wrong answer in the form that the method demands gets: at least 0, less than "
            "verifier_correct_reward. It counts where reward_mode is verifier, sum or gdpo."
        },
    )
    verifier_timeout: float = field(default=3.0, metadata={"help": "Seconds an answer may take to verify."})
    verifier_num_workers: int | None = field(
        default=None, metadata={"help": "Processes that verify; by default as many as the machine has to spare."}
    )


REWARD_MODEL, VERIFIER = "reward_model_", "verifier_"


def verifier_settings(judges: JudgeArguments) -> dict[str, Any]:
    """Return the verifier's settings, by their names in [`MathVerifier`]."""
    return {
        option.name.removeprefix(VERIFIER): getattr(judges, option.name)
        for option in fields(judges)
        if option.name.startswith(VERIFIER)
    }


def reward_model_settings(judges: JudgeArguments) -> dict[str, Any]:
    """Return the reward model's settings that are not the default, by their names in [`RewardModel`]."""
    settings = {
        option.name.removeprefix(REWARD_MODEL): getattr(judges, option.name)
        for option in fields(judges)
        if option.name.startswith(REWARD_MODEL) and getattr(judges, option.name) != option.default
    }
    settings.pop("name_or_path", None)
    bits_4, bits_8 = settings.pop("load_in_4bit", False), settings.pop("load_in_8bit", False)
    if bits_4 or bits_8:
        from transformers import BitsAndBytesConfig  # heavy, and hardly ever asked for

        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=bits_4,
            load_in_8bit=bits_8,
            llm_int8_skip_modules=["score"],
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype="bfloat16",
        )
    return settings


CPU_DEFAULTS = {"use_cpu": True, "bf16": False, "dtype": "float32", "gradient_checkpointing": False}
"""Over a recipe's own defaults where it runs on a CPU, which computes bfloat16 slowly and has memory enough."""


def parse_arguments(
    dataclasses: Sequence[type],
    defaults: dict[str, Any],
    args: Sequence[str] | None = None,
    short_help: Sequence[str] = SHORT_HELP,
    cpu_defaults: dict[str, Any] | None = None,
    **parser_kwargs: Any,
) -> tuple[Any, ...]:
    """Parse the command line over a flat YAML file (`--config`) over a recipe's defaults.

    Args:
        dataclasses: One for each object to return.
        defaults: A recipe's own values in place of the dataclasses'.
        args: Command line; `sys.argv` without it.
        short_help: Options that `--help` shows.
        cpu_defaults: Over `defaults` where there is no GPU, or `use_cpu` is asked for.
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
    if cpu_defaults and (parser.parse_known_args(args)[0].use_cpu or _no_gpu()):
        given = {name: value for name, value in cpu_defaults.items() if name not in settings}
        parser.set_defaults_with_config(**given)
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(args, return_remaining_strings=True)
    except ValueError as error:  # the libraries' settings refuse by it what does not go together
        raise InputError(str(error)) from error
    if unknown:
        option = str(unknown[0])
        raise InputError(f"Unknown option {option!r}.{_hint(option, known, '--')} `--help_all` lists all options.")
    return tuple(parsed)


def _no_gpu() -> bool:
    # Heavy, and here only: help does without.
    import torch
    from accelerate.utils import parse_flag_from_env

    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


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
