"""`trl-hybrid plan`: how much memory a run needs, and where its reward model should live."""

import argparse
import json
from typing import Any

from trl_hybrid.commands.plan_table import plan_lines
from trl_hybrid.memory.size import GB


SUMMARY = "estimate the memory of a run, and choose the reward model's placement"

USAGE = "[--config FILE] [--launch_config FILE] [--gpu_memory GB] [--gpus N] [--json] [--OPTION VALUE ...]"

DESCRIPTION = """Estimate the memory of a training run for each place where the reward model's weights can live.

Takes the recipe's YAML file and all its options, and reads two config.json files: no weights are loaded, no GPU is
needed. Sizes are for one GPU, in GB of 10^9 bytes. Ends with options to add where what is asked for does not fit.

Exits with 0 where it fits or the size of the GPU is not known, and with 1 where it does not fit.
"""

EXAMPLES = """examples:
  trl-hybrid plan --config recipes/configs/tinyllama_grpo.yaml --gpu_memory 24
  trl-hybrid plan --config recipes/configs/tinyllama_grpo.yaml --gpu_memory 24 --per_device_train_batch_size 4
  trl-hybrid plan --model_name_or_path Qwen/Qwen3-4B --gpu_memory 80 --gpus 2 --json
  trl-hybrid plan --use_peft false --gpu_memory 24 --gpus 4 --launch_config accelerate_configs/zero2.yaml

placements of the reward model (--reward_model_placement):
  resident  on the GPU, whole: fastest
  streamed  in pinned host memory, three layers at a time on the GPU (Qwen2, Qwen3, Llama)
  zero3     in host memory, shared by all processes, gathered layer by layer by DeepSpeed
  cpu       scored on the CPU: slow
  server    behind vLLM or SGLang (--reward_model_server_url): nothing of it here
"""


def add_options(plan: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    add = plan.add_argument
    add("--config", metavar="FILE", help="the recipe's YAML file; any option of the recipe may follow, over it")
    size = {"type": _positive_float, "metavar": "GB"}
    add("--gpu_memory", **size, help="memory of one GPU (default: what is free on this machine's)")
    add("--host_memory", **size, help="memory of the machine (default: what is free, where the GPU is this machine's)")
    count = {"type": _positive_int, "metavar": "N"}
    add("--gpus", **count, help="GPUs, one process each (default: the launch's, or 1)")
    add("--launch_config", metavar="FILE", help="accelerate's YAML file: number of GPUs, what DeepSpeed shares out")
    add("--prompt_tokens", **count, default=256, help="of the longest prompt, chat template included (default: 256)")
    add("--json", action="store_true", help="print JSON, in bytes")
    plan.set_defaults(recipe_options=[])


def run(args: argparse.Namespace) -> int:
    """Estimate, and print a table or JSON."""
    plan = make_plan(args)
    print(json.dumps(plan, indent=2) if args.json else "\n".join(plan_lines(plan)))
    return 1 if plan["fits"] is False else 0


def make_plan(args: argparse.Namespace) -> dict[str, Any]:
    """Estimate all parts in bytes.

    Returns:
        What `--json` prints: `policy`, `reward_model`, `training` (parts and total), `placements` (bytes of
        `reward_model`, of it `lasting` and `passing`, `gpu` and `host` each), `free`, `chosen`, `recommended`,
        `reason`, `fits`, `suggestions`, `nearest` and `notes`. `host` is the machine's, over all processes. Without a
        GPU size `recommended` and `fits` are null.

    Raises:
        InputError: A model's configuration, or the launch's, cannot be had.
    """
    from trl_hybrid.commands.plan_estimator import Estimator
    from trl_hybrid.commands.plan_fit import settings_that_fit

    free, host = (None if size is None else int(size * GB) for size in (args.gpu_memory, args.host_memory))
    estimator = Estimator(
        args.config,
        args.recipe_options,
        args.prompt_tokens,
        args.gpus,
        args.launch_config,
        gpu_bytes=free,
        host_bytes=host,
    )
    asked = estimator.estimate({})
    plan = asked.plan
    slow = plan["chosen"] == "auto" and plan["recommended"] == "cpu"
    if plan["free"] is not None and (slow or not plan["fits"]):
        plan["suggestions"], plan["nearest"] = settings_that_fit(asked, estimator.try_options)
    return plan


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return value


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)
