"""`trl-hybrid eval`: how often a model is right, and how much better than before."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_hybrid.errors import InputError


if TYPE_CHECKING:
    from trl_hybrid.commands.eval_settings import EvalSettings
    from trl_hybrid.policy.source import PolicySource

SUMMARY = "measure a model's accuracy, alone or against its base"

USAGE = "--model MODEL [--base [MODEL]] [--dataset_name NAME] [--OPTION VALUE ...]"

DESCRIPTION = "Measure how often a model is right: greedy, mean of n, pass@k, majority, best of n by score."

EXAMPLES = """examples:
  trl-hybrid eval --model runs/x --base
  trl-hybrid eval --model TinyLlama/TinyLlama-1.1B-Chat-v1.0 --dataset_name openai/gsm8k --dataset_config main
  trl-hybrid eval --model runs/x --reward_model --output_dir runs/x/best-of-8

Writes eval.json (figures) and rows.jsonl (answers). The same command goes on where it stopped. docs/evaluation.md
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    add = parser.add_argument
    add("--model", "--model_name_or_path", required=True, help="id, or a model's, adapter's or run's folder")
    add("--model_revision", metavar="NAME", help="branch, tag or commit of an id")
    add("--base", nargs="?", const="", metavar="MODEL", help="compare with it (default: what MODEL was)")
    add("--output_dir", type=Path, metavar="DIR", help="where results go (default: MODEL/eval)")
    add("--overwrite", action="store_true", help="answer everything anew")
    add("--dataset_name", metavar="NAME", help="id, folder or file (default: the run's own)")
    add("--dataset_config", metavar="NAME", help="configuration of the data set")
    add("--dataset_split", metavar="NAME", help="(default: the run's own; test; train)")
    add("--dataset_test_split", dest="dataset_split", help=argparse.SUPPRESS)  # the recipe's name for it
    add("--dataset_prompt_column", metavar="COL", help="column of the problems")
    add("--dataset_solution_column", metavar="COL", help="column of the gold answers")
    add("--max_rows", type=int, metavar="N", help="at most so many problems")
    add("--system_prompt", metavar="TEXT", help="(default: the run's or model's; '' for none)")
    add("--num_samples", type=int, default=8, metavar="N", help="sampled answers a problem (default: 8)")
    add("--temperature", type=float, metavar="T", help="(default: the run's own, or 0.8)")
    add("--top_p", type=float, metavar="P", help="(default: the run's own, or 1)")
    add("--max_completion_length", type=int, metavar="N", help="in tokens (default: the run's own, or 384)")
    add("--seed", type=int, default=0, metavar="N", help="of the samples (default: 0)")
    add("--batch_size", type=int, default=16, metavar="N", help="problems at once (default: 16)")
    dtype = "bfloat16, float16 or float32 (default: bfloat16; float32 where this machine does not compute in it)"
    add("--dtype", choices=["bfloat16", "float16", "float32"], metavar="TYPE", help=dtype)
    add("--backend", choices=["transformers", "vllm"], default="transformers", help="(default: transformers)")
    add(
        "--vllm_gpu_memory_utilization",
        type=float,
        metavar="F",
        help="of the GPU (default: 0.9, beside a reward model 0.5)",
    )
    add("--vllm_max_model_length", type=int, metavar="N", help="prompt and answer, in tokens (default: what is asked)")
    add("--reward_model", nargs="?", const="", metavar="ID", help="best of n by score (default: the run's own)")
    add("--reward_model_name_or_path", dest="reward_model", help=argparse.SUPPRESS)
    add("--reward_model_placement", metavar="NAME", help="auto, resident, streamed or cpu")
    add("--reward_model_server_url", help=argparse.SUPPRESS)
    add("--reward_model_system_prompt", metavar="TEXT", help="(default: a known model's own)")


def run(args: argparse.Namespace) -> int:
    """Answer, judge, write and print; return 0, or 130 after Ctrl-C."""
    try:
        return _run(args)
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nInterrupted. The same command, without --overwrite, goes on after the problems that are answered.\n"
        )
        return 130


def _run(args: argparse.Namespace) -> int:
    from trl_hybrid.commands.eval_settings import load_problems, resolve
    from trl_hybrid.commands.eval_table import accuracy_lines, answers
    from trl_hybrid.evaluation.statistics import compare_models, counts, summarize
    from trl_hybrid.runs.folder import package_versions, write_json
    from trl_hybrid.runs.settings import local_names

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("`trl-hybrid eval` writes its files from one process. Start it without `accelerate launch`.")
    settings = resolve(args)
    folder = args.output_dir or _default_folder(args.model)
    if folder.is_file():
        raise InputError(f"--output_dir must be a folder, got the file {str(folder)!r}.")
    if settings.taken:
        print(f"From the run's own settings: {', '.join(f'{k}={v!r}' for k, v in settings.taken.items())}")
    prompt = settings.problems.system_prompt
    print(f"System prompt ({settings.prompt_source}): {repr(prompt) if prompt else 'none'}")
    problems, split = load_problems(settings)
    if split == settings.trained_split:
        print(f"The model was trained on the split {split!r} of these problems: what is measured is no accuracy.")
    elif split == "train" and args.dataset_split is None:
        print("There is no test split: measuring on `train`. Where the model was trained on it, that is no accuracy.")

    _tell_of_long_prompts(settings, problems)
    policies = {"rows": settings.model, **({"base_rows": settings.base} if settings.base else {})}
    made = _answer_all(args, settings, policies, [dict(row) for row in problems], folder)
    rows = made["rows"]
    if counts(rows)["unjudgeable"] == len(rows):
        raise InputError(f"None of the {len(rows)} gold answers can be judged. Check the column of the gold answers.")
    result = {
        "model": settings.model.describe(),
        "figures": summarize(rows, args.seed),
        "counts": counts(rows),
        "settings": {
            "problems": {**asdict(settings.problems), "split": split},
            "decoding": asdict(settings.decoding),
            "dtype": args.dtype,
            "backend": args.backend,
            "reward_model": settings.judges.reward_model_name_or_path if settings.judges else None,
        },
        "versions": package_versions(),
        "local": local_names({"dataset_name": settings.problems.name}),
    }
    if settings.base:
        base = made["base_rows"]
        result["base"] = {
            "model": settings.base.describe(), "figures": summarize(base, args.seed), "counts": counts(base)
        }  # fmt: skip
        result["difference"] = compare_models(base, rows, args.seed)
    write_json(folder / "eval.json", result)
    print("\n".join([*answers(rows), *accuracy_lines(result)]))
    print(f"\nWritten: {folder / 'eval.json'}, {', '.join(str(folder / f'{name}.jsonl') for name in policies)}")
    return 0


def _tell_of_long_prompts(settings: EvalSettings, problems: Any) -> None:
    from trl_hybrid.data.prompt_reader import PromptReader

    reader = PromptReader(
        settings.model.base,
        settings.decoding.max_completion_length,
        revision=settings.model.revision,
        chat_template_kwargs=settings.decoding.chat_template_kwargs,
    )
    too_long = sum(reader.room is not None and length > reader.room for length in reader.lengths(problems["prompt"]))
    if too_long:
        print(
            f"{too_long} of {len(problems)} prompts leave less than {reader.completion} tokens of the context of "
            f"{reader.context} for the answer: their answers may mean nothing. Training leaves such problems out."
        )


def _default_folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model) / "eval"
    return Path("runs") / f"eval-{model.rsplit('/', maxsplit=1)[-1]}"


def _answer_all(
    args: argparse.Namespace,
    settings: EvalSettings,
    policies: dict[str, PolicySource],
    problems: list[dict[str, Any]],
    folder: Path,
) -> dict[str, list[dict[str, Any]]]:
    """Fill one file of rows for each policy; what another run made there is refused before anything is loaded."""
    from trl_hybrid.commands.eval_loading import Loader
    from trl_hybrid.evaluation.samples import sample_rows, samples_file
    from trl_hybrid.verifier import MathVerifier

    way_out = "Nothing was written. Name another --output_dir, or write both anew by --overwrite."
    files = {
        name: samples_file(folder / f"{name}.jsonl", problems, _sampling(args, settings, source), way_out)
        for name, source in policies.items()
    }
    if not args.overwrite:
        for file in files.values():
            if done := len(file.read()[0]):
                print(f"{file.path} holds {done} of {len(problems)} problems already.")
    made = {}
    with MathVerifier() as verifier:
        loader = Loader(args, settings, problems, verifier)
        for name, file in files.items():
            with ExitStack() as engine:  # vLLM's, which ends before the next one starts
                made[name] = sample_rows(
                    file,
                    lambda source=policies[name], engine=engine: loader.load(source, engine),
                    settings.decoding,
                    args.batch_size,
                    args.overwrite,
                    "Base model" if name == "base_rows" else "Model",
                )
    return made


def _sampling(args: argparse.Namespace, settings: EvalSettings, source: PolicySource) -> dict[str, Any]:
    """Say what decides about a file's rows."""
    from trl_hybrid.commands.score import describe
    from trl_hybrid.policy.source import default_dtype

    judged = {"reward_model": describe(settings.judges)} if settings.judges else {}
    length = {"max_model_length": args.vllm_max_model_length} if args.vllm_max_model_length else {}
    how = {"dtype": args.dtype or default_dtype(), "backend": args.backend, **length}
    return {**source.describe(), **asdict(settings.decoding), **how, **judged}
