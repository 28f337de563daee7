"""`trl-hybrid plan`: how much memory a run needs, and where its reward model should live."""

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trl_hybrid.commands.recipe_options import parse_recipe_options


if TYPE_CHECKING:
    from trl_hybrid.memory import Policy, Workload

GB = 10**9

DESCRIPTION = """Estimate the memory of a training run for each place where the reward model's weights can live.

Takes the recipe's YAML file and all its options, and reads two config.json files: no weights are loaded, no GPU is
needed. Sizes are for one GPU, in GB of 10^9 bytes.
"""

EXAMPLES = """examples:
  trl-hybrid plan --config recipes/configs/tinyllama_grpo.yaml --gpu-memory 24
  trl-hybrid plan --config recipes/configs/tinyllama_grpo.yaml --gpu-memory 24 --per_device_train_batch_size 4
  trl-hybrid plan --model_name_or_path Qwen/Qwen3-4B --gpu-memory 80 --gpus 2 --json

placements of the reward model (--reward_model_placement):
  resident  on the GPU, whole: fastest
  streamed  in pinned host memory, three layers at a time on the GPU (Qwen2, Qwen3, Llama)
  zero3     in host memory, shared by all processes, gathered layer by layer by DeepSpeed
  cpu       scored on the CPU: slow
"""

PARTS = {
    "weights": "policy weights",
    "reference": "reference model",
    "optimizer": "optimizer",
    "gradients": "gradients",
    "activations": "activations (1)",
    "generation": "generation (1)",
    "context": "CUDA context",
}


def add_parser(commands: Any) -> None:
    """Describe the command to the command line."""
    plan = commands.add_parser(
        "plan",
        help="estimate the memory of a run, and choose the reward model's placement",
        usage="trl-hybrid plan [--config FILE] [--gpu-memory GB] [--gpus N] [--json] [--OPTION VALUE ...]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = plan.add_argument
    add(
        "--config", metavar="FILE", help="the recipe's YAML file; any option of the recipe may follow and goes over it"
    )
    add(
        *("--gpu-memory", "--gpu_memory"),
        type=_positive_float,
        metavar="GB",
        help="memory of one GPU (default: what is free on this machine's)",
    )
    add("--gpus", type=_positive_int, default=1, metavar="N", help="GPUs, one process each (default: 1)")
    add(
        *("--prompt-tokens", "--prompt_tokens"),
        type=_positive_int,
        default=256,
        metavar="N",
        help="tokens of the longest prompt, chat template included (default: 256)",
    )
    add("--json", action="store_true", help="print JSON, in bytes")
    plan.set_defaults(run=run, recipe_options=[])


def run(args: argparse.Namespace) -> int:
    """Estimate, and print a table or JSON."""
    with warnings.catch_warnings():
        # TRL and PEFT use names that transformers 5.23 renames.
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        plan = make_plan(args)
    print(json.dumps(plan, indent=2) if args.json else "\n".join(_table(plan)))
    return 0


def make_plan(args: argparse.Namespace) -> dict[str, Any]:
    """Estimate all parts in bytes.

    Args:
        args: `config`, `gpu_memory` in GB, `gpus`, `prompt_tokens` and `recipe_options`.

    Returns:
        What `--json` prints: `policy`, `reward_model`, `training` (parts and total), `placements` (bytes of
        `reward_model`, `gpu` and `host` each), `free`, `chosen`, `recommended`, `reason` and `notes`. `host` is the
        machine's, over all processes. Without a GPU size `recommended` is null.

    Raises:
        InputError: A model's configuration cannot be had.
    """
    from trl_hybrid.estimates import named_dtype, policy_of, workload_of
    from trl_hybrid.memory import estimate_training
    from trl_hybrid.preflight import check_model_found
    from trl_hybrid.reward_model.footprint import PLACEMENTS, choose_placement, measure_footprint

    tasks, judges, training, model = parse_recipe_options(args.config, args.recipe_options)
    check_model_found(model.model_name_or_path, "policy", model.model_revision, training.trust_remote_code)
    policy = policy_of(model, training)
    work = workload_of(training, tasks.max_test_rows != 0, args.gpus, args.prompt_tokens)
    parts = estimate_training(policy, work)
    trusted = judges.reward_model_trust_remote_code
    footprint = measure_footprint(_reward_config(judges), named_dtype(judges.reward_model_dtype), trusted)
    tokens = judges.reward_model_token_budget

    free = _free_bytes(args)
    if free is not None and training.use_vllm and training.vllm_mode == "colocate":
        free = int(free * (1 - training.vllm_gpu_memory_utilization))
    recommended, reason = (None, None)
    if free is not None:
        recommended, reason = choose_placement(footprint, free, tokens, parts.total)
    plan = {
        "gpus": args.gpus,
        "policy": {"name": model.model_name_or_path, **_sizes(policy, work)},
        "reward_model": {"name": judges.reward_model_name_or_path, "weights": footprint.weight_bytes},
        "training": {**asdict(parts), "total": parts.total},
        "placements": {
            placement: {
                "reward_model": footprint.gpu_bytes(placement, tokens),
                "gpu": parts.total + footprint.gpu_bytes(placement, tokens),
                "host": footprint.host_bytes(placement, args.gpus) * args.gpus,
            }
            for placement in PLACEMENTS
            if placement != "streamed" or footprint.streamable
        },
        "free": free,
        "chosen": judges.reward_model_placement,
        "recommended": recommended,
        "reason": reason,
    }
    quantized = judges.reward_model_load_in_4bit or judges.reward_model_load_in_8bit
    return {**plan, "notes": list(_notes(plan, training, quantized))}


def _reward_config(judges: Any) -> Any:
    from trl_hybrid.preflight import check_model_found
    from trl_hybrid.reward_model.loading import Source, load_config

    name, revision = judges.reward_model_name_or_path, judges.reward_model_revision
    trusted = judges.reward_model_trust_remote_code
    check_model_found(name, "reward model", revision, trusted)
    return load_config(Source(name, revision, trusted))


def _sizes(policy: "Policy", work: "Workload") -> dict[str, int]:
    return {
        "parameters": policy.parameters,
        "trained_parameters": policy.trained_parameters,
        "rows": work.rows,
        "generated_rows": work.generated_rows,
        "prompt_tokens": work.prompt_tokens,
        "completion_tokens": work.completion_tokens,
    }


def _free_bytes(args: argparse.Namespace) -> int | None:
    import torch

    if args.gpu_memory is not None:
        return int(args.gpu_memory * GB)
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None


def _notes(plan: dict[str, Any], training: Any, quantized: bool) -> Iterator[str]:
    """Say what the numbers leave out, and what does not fit."""
    free, chosen = plan["free"], plan["chosen"]
    if free is None:
        yield "There is no GPU here: give --gpu-memory (GB of one GPU) for a recommendation."
    elif plan["training"]["total"] > free:
        yield (
            "Training alone does not fit. Lower per_device_train_batch_size and raise gradient_accumulation_steps, "
            "lower steps_per_generation or max_completion_length, or use_peft."
        )
    elif chosen in plan["placements"] and plan["placements"][chosen]["gpu"] > free:
        yield f"reward_model_placement is {chosen!r} here and does not fit; with 'auto' it is {plan['recommended']!r}."
    if quantized:
        yield "The reward model is counted as if it were not quantized; quantized, it is resident and smaller."
    if training.use_vllm:
        yield "vLLM's own memory is not in the table; in colocate mode its share is taken off what is free."
    if training.deepspeed or training.fsdp:
        yield "The policy is counted whole on each GPU: DeepSpeed or FSDP may shard it and need less."


def _table(plan: dict[str, Any]) -> Iterator[str]:
    policy, training, placements = plan["policy"], plan["training"], plan["placements"]
    yield (
        f"Policy: {policy['name']}, {policy['parameters'] / 1e6:,.0f} M parameters, "
        f"{policy['trained_parameters'] / 1e6:,.1f} M trained; {policy['rows']} rows of {policy['prompt_tokens']} + "
        f"{policy['completion_tokens']} tokens a forward, {policy['generated_rows']} generated at once"
    )
    yield f"Reward model: {plan['reward_model']['name']}"
    yield ""
    yield _line("GB (10^9 bytes) on each GPU", list(placements))
    for part, label in PARTS.items():
        if training[part] or part in ("activations", "generation"):
            yield _line(label, [_gb(training[part])] * len(placements))
    yield _line("reward model", [_gb(place["reward_model"]) for place in placements.values()])
    yield _line("all", [_gb(place["gpu"]) for place in placements.values()])
    yield _line("host memory, all processes (2)", [_gb(place["host"]) for place in placements.values()])
    yield ""
    yield "(1) They take turns: the larger one counts.  (2) The reward model's weights."
    yield from (["", f"Recommended placement: {plan['reason']}"] if plan["reason"] else [])
    yield from ["", *plan["notes"]] if plan["notes"] else []


def _line(label: str, cells: Sequence[str]) -> str:
    return f"{label:32}" + "".join(f"{cell:>10}" for cell in cells)


def _gb(size: int) -> str:
    return f"{size / GB:.2f}"


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value
