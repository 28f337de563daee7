"""What `trl-hybrid eval` measures: the command line over the run's own settings over defaults."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_hybrid.errors import InputError


if TYPE_CHECKING:
    from datasets import Dataset

    from trl_hybrid.data import TaskSource
    from trl_hybrid.policy.generation import Decoding
    from trl_hybrid.policy.source import PolicySource
    from trl_hybrid.recipe.options import JudgeArguments
    from trl_hybrid.runs.record import RunRecord

OF_DATA_SET = ("dataset_config", "dataset_prompt_column", "dataset_solution_column", "max_question_chars")
"""Settings of a run that belong to its data set: with another one they are not taken over."""

OF_DECODING = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length", "chat_template_kwargs",
)  # fmt: skip


@dataclass(frozen=True)
class EvalSettings:
    """Everything that decides about an evaluation's figures.

    Attributes:
        model: The policy.
        base: What it is compared with; None for nothing.
        problems: Which problems; see `split`.
        split: The split that was asked for; None for `test` where there is one.
        decoding: How to answer.
        judges: The reward model that chooses the best of the samples; None for none.
        taken: What was taken from the run's own settings, to be said.
        prompt_source: Who says which system prompt is used.
        trained_split: The split of the same data set that the run was trained on; None where there is none.
    """

    model: PolicySource
    base: PolicySource | None
    problems: TaskSource
    split: str | None
    decoding: Decoding
    judges: JudgeArguments | None
    taken: dict[str, Any]
    prompt_source: str
    trained_split: str | None


def resolve(args: argparse.Namespace) -> EvalSettings:
    """Bring together the command line and what the model's run says of itself.

    Raises:
        InputError: A model that cannot be had, no data set, or a value out of its range.
    """
    from trl_hybrid.policy.source import find_policy
    from trl_hybrid.runs.record import record_of_model

    _check(args)
    record = record_of_model(args.model)
    own, model = record.asked, find_policy(args.model, args.model_revision)
    prompt, prompt_source = _system_prompt(args.system_prompt, own, model)
    problems, split, of_problems = _problems(args, own, prompt)
    decoding, of_decoding = _decoding(args, own)
    return EvalSettings(
        model=model,
        base=_base(args.base, model, record),
        problems=problems,
        split=split,
        decoding=decoding,
        judges=_judges(args, own),
        taken={**of_problems, **of_decoding},
        prompt_source=prompt_source,
        trained_split=own.get("dataset_train_split") if record.data == [problems.name] else None,
    )


def load_problems(settings: EvalSettings) -> tuple[Dataset, str]:
    """Load the problems, those of the `test` split where no split is named and there is one.

    Returns:
        Rows of `prompt` and `solution`, and the split's name.
    """
    from trl_hybrid.data.files import BUILDERS

    source, split = settings.problems, settings.split
    if split is None and Path(source.name).suffix not in BUILDERS:  # a file has no second split
        tasks = replace(source, split="test").load_held_out()
        if tasks is not None:
            return tasks, "test"
    split = split or "train"
    loaded: Any = replace(source, split=split).load()
    return loaded, split


def _check(args: argparse.Namespace) -> None:
    for name in ("num_samples", "batch_size", "max_rows", "max_completion_length", "vllm_max_model_length"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}.")
    if args.temperature is not None and not args.temperature > 0:
        raise InputError(f"--temperature must be above 0, got {args.temperature}. The greedy answer is measured too.")
    if args.top_p is not None and not 0 < args.top_p <= 1:
        raise InputError(f"--top_p must be above 0 and at most 1, got {args.top_p}.")
    share = args.vllm_gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        raise InputError(f"--vllm_gpu_memory_utilization must be above 0 and at most 1, got {share}.")
    for name in ("vllm_gpu_memory_utilization", "vllm_max_model_length"):
        if args.backend != "vllm" and getattr(args, name) is not None:
            raise InputError(f"--{name} is an option of vLLM. Add --backend vllm, or leave it out.")
    if args.seed < 0:
        raise InputError(f"--seed must be at least 0, got {args.seed}.")


def _base(wanted: str | None, model: PolicySource, record: RunRecord) -> PolicySource | None:
    """Find what `--base` names: without a value the adapter's base, or what the run started from."""
    from trl_hybrid.policy.source import PolicySource, find_policy

    if wanted is None:
        return None
    if wanted:
        return find_policy(wanted)
    if model.adapter is not None:
        return PolicySource(model.base, model.base, None, model.revision)
    if record.base_model:
        return find_policy(record.base_model, record.asked.get("model_revision"))
    raise InputError(
        f"{model.name!r} is no adapter and no run's folder, so that --base must name what to compare it with: "
        "--base <id or folder>."
    )


def _system_prompt(given: str | None, own: dict[str, Any], model: PolicySource) -> tuple[str | None, str]:
    """Choose what is put before each problem, and say on whose word: a model answers to what it was trained with."""
    from trl_hybrid.recipe.defaults import RECIPE_DEFAULTS
    from trl_hybrid.runs.carried_prompt import CARRIED, carried_prompt

    if given is not None:
        return given or None, "given by --system_prompt"
    if "system_prompt" in own:
        return own["system_prompt"] or None, "the run's own"
    of_adapter = carried_prompt(model.adapter, model.adapter_revision) if model.adapter else {}
    carried = of_adapter or carried_prompt(model.base, model.revision)
    if carried:
        return carried["system_prompt"], f"what the model was trained with, as its {CARRIED} says"
    default = RECIPE_DEFAULTS["system_prompt"]
    return default, "the training recipe's, as the model does not say its own; --system_prompt '' for none"


def _problems(
    args: argparse.Namespace, own: dict[str, Any], system_prompt: str | None
) -> tuple[TaskSource, str | None, dict[str, Any]]:
    """Return which problems, the split that was asked for, and what of both is the run's own."""
    from trl_hybrid.data import TaskSource

    of_one = not own.get("datasets")  # a mixture has no name
    same = of_one and args.dataset_name in (None, own.get("dataset_name"))
    theirs = {name: own[name] for name in OF_DATA_SET if same and own.get(name) is not None}
    if same and "dataset_name" in own:
        theirs["dataset_name"] = own["dataset_name"]
        test_split = own.get("dataset_test_split") or ""
        if "[" in test_split or not Path(own["dataset_name"]).is_file():  # of a file only a slice is held out
            theirs |= {"dataset_split": test_split} if test_split else {}
            theirs |= {"max_rows": own["max_test_rows"]} if own.get("max_test_rows") else {}
    given = {name: value for name, value in vars(args).items() if value is not None}
    found = {**theirs, **given}
    if found.get("dataset_name") is None:
        raise InputError(
            f"{args.model!r} is no run's folder that says on which problems to measure it. Name them: --dataset_name "
            "<id on the Hub, folder or file>."
        )
    problems = TaskSource(
        found["dataset_name"],
        found.get("dataset_config"),
        system_prompt=system_prompt,
        max_question_chars=found.get("max_question_chars"),
        max_rows=found.get("max_rows"),
        prompt_column=found.get("dataset_prompt_column"),
        solution_column=found.get("dataset_solution_column"),
    )
    taken = {name: value for name, value in theirs.items() if name not in given}
    return problems, found.get("dataset_split"), taken


def _decoding(args: argparse.Namespace, own: dict[str, Any]) -> tuple[Decoding, dict[str, Any]]:
    from trl_hybrid.policy.generation import Decoding

    theirs = {name: own[name] for name in OF_DECODING if own.get(name) is not None}
    given = {name: getattr(args, name, None) for name in OF_DECODING}
    given = {name: value for name, value in given.items() if value is not None}
    decoding = Decoding(num_samples=args.num_samples, seed=args.seed, **{**theirs, **given})
    shown = ("temperature", "max_completion_length")
    return decoding, {name: theirs[name] for name in shown if name in theirs and name not in given}


def _judges(args: argparse.Namespace, own: dict[str, Any]) -> JudgeArguments | None:
    """Find what `--reward_model` names: without a value the one that the run was trained with, as it was."""
    from trl_hybrid.recipe.options import JudgeArguments

    if args.reward_model is None:
        return None
    if not args.reward_model and "reward_model_name_or_path" not in own:
        raise InputError(
            "--reward_model must name one where --model is no run's folder: --reward_model <id or folder>."
        )
    known = {field.name for field in fields(JudgeArguments)}
    settings = {} if args.reward_model else {name: value for name, value in own.items() if name in known}
    if args.reward_model:
        settings["reward_model_name_or_path"] = args.reward_model
    if args.reward_model_placement not in (None, "server"):
        settings.pop("reward_model_server_url", None)  # it is loaded here now
    for name in ("reward_model_placement", "reward_model_server_url", "reward_model_system_prompt"):
        if getattr(args, name) is not None:
            settings[name] = getattr(args, name)
    return JudgeArguments(**settings)
