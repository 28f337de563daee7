"""What a recipe's command line asks for beside TRL's own: which data, which judges."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, get_args

import yaml
from trl import DatasetMixtureConfig, ScriptArguments
from trl.scripts.utils import DatasetConfig

from trl_hybrid.errors import InputError
from trl_hybrid.verifier.verifier import Method


@dataclass
class TaskArguments(ScriptArguments, DatasetMixtureConfig):
    """Which problems to train on and how they are put to the policy.

    Raises:
        InputError: An entry of `datasets` has a key that TRL's `DatasetConfig` does not know, or no `path`.
    """

    dataset_name: str = field(  # pyright: ignore[reportIncompatibleVariableOverride] - never None here
        default="data/dummy_math_tasks.jsonl",
        metadata={
            "help": "Problems with gold answers: an id on the Hub, a folder with a file for each split, a .json, "
            ".jsonl, .csv or .parquet file, or gym:NAME for a generator of reasoning-gym. Columns are found by the "
            "table in docs/data.md. `datasets` goes before it."
        },
    )
    dataset_config: str | None = field(
        default=None,
        metadata={
            "help": "Name of the data set's configuration; for a generator its options, as '{min_terms: 2, size: "
            "1000}'."
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
        """Check the entries of `datasets`, which TRL takes as they are, and write a generator's options as text."""
        self.dataset_config = _as_text(self.dataset_config)
        known = [option.name for option in fields(DatasetConfig)]
        for entry in self.datasets:
            if isinstance(entry, dict) and ("path" not in entry or not set(entry) <= set(known)):
                raise InputError(
                    f"Each entry of `datasets` needs `path` and may have {', '.join(known[1:])}; got {entry}."
                )
        # A list of its own: TRL puts objects into the caller's.
        self.datasets = [_with_text(entry) if isinstance(entry, dict) else entry for entry in self.datasets]
        super().__post_init__()


def _as_text(config: Any) -> str | None:
    """Write a generator's options, a mapping in a YAML file, as the text that they are on the command line."""
    if not isinstance(config, dict):
        return config
    return yaml.safe_dump(config, default_flow_style=True, sort_keys=False, width=math.inf).strip()


def _with_text(entry: dict[str, Any]) -> Any:
    return {**entry, "name": _as_text(entry.get("name"))}


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
            "help": "Most computed tokens of one forward of the reward model, or of one request to a server; by "
            "default 16384 on a GPU (8192 streamed), 1024 on a CPU and 4096 for a server."
        },
    )
    reward_model_placement: str = field(
        default="auto",
        metadata={
            "help": "Where the reward model's weights live: resident (on the GPU), streamed (in host memory, a layer "
            "at a time on the GPU), zero3 (in host memory, shared by all processes, under DeepSpeed), cpu (scored on "
            "the CPU), server (behind reward_model_server_url), or auto: the first of resident, streamed and cpu that "
            "fits beside the policy.",
            "choices": ["auto", "resident", "streamed", "zero3", "cpu", "server"],
        },
    )
    reward_model_server_url: str | None = field(
        default=None,
        metadata={
            "help": "Address of a vLLM or SGLang server of the reward model, http://host:port; several, with commas "
            "between them, share the rows. Its weights are not loaded here then; `trl-hybrid serve-command` prints "
            "how to start one."
        },
    )
    reward_model_server_timeout: float = field(
        default=120.0,
        metadata={"help": "Seconds one request to a server may take; all rows of a step may take five times that."},
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
    verifier_timeout: float = field(default=3.0, metadata={"help": "CPU seconds an answer may take to verify."})
    verifier_num_workers: int | None = field(
        default=None, metadata={"help": "Processes that verify; by default as many as the machine has to spare."}
    )

    def __post_init__(self) -> None:
        if self.reward_model_server_url or self.reward_model_placement == "server":
            from trl_hybrid.reward_model.server_address import asked_servers  # its room loads torch

            asked_servers(self.reward_model_placement, self.reward_model_server_url)


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
    if "server_url" in settings:
        settings["server_urls"] = settings.pop("server_url")
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
