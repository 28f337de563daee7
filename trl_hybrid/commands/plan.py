"""`trl-hybrid plan`: how much memory a run needs, and where its reward model should live."""

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from trl_hybrid.commands.recipe_options import parse_recipe_options


if TYPE_CHECKING:
    from trl_hybrid.commands.plan_fit import Estimate
    from trl_hybrid.estimates import Launch
    from trl_hybrid.memory import Policy, TrainingMemory, Workload
    from trl_hybrid.reward_model.footprint import Footprint

GB = 10**9

DESCRIPTION = """Estimate the memory of a training run for each place where the reward model's weights can live.

Takes the recipe's YAML file and all its options, and reads two config.json files: no weights are loaded, no GPU is
needed. Sizes are for one GPU, in GB of 10^9 bytes. Ends with options to add where what is asked for does not fit.

Exits with 0 where it fits or the size of the GPU is not known, and with 1 where it does not fit.
"""

EXAMPLES = """examples:
  trl-hybrid plan --config recipes/configs/tinyllama_grpo.yaml --gpu-memory 24
  trl-hybrid plan --config recipes/configs/tinyllama_grpo.yaml --gpu-memory 24 --per_device_train_batch_size 4
  trl-hybrid plan --model_name_or_path Qwen/Qwen3-4B --gpu-memory 80 --gpus 2 --json
  trl-hybrid plan --use_peft false --gpu-memory 24 --gpus 4 --launch-config accelerate_configs/zero2.yaml

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
        usage="trl-hybrid plan [--config FILE] [--launch-config FILE] [--gpu-memory GB] [--gpus N] [--json] "
        "[--OPTION VALUE ...]",
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
    add(
        *("--host-memory", "--host_memory"),
        type=_positive_float,
        metavar="GB",
        help="memory of the machine (default: what is free here, where the GPU is this machine's)",
    )
    add("--gpus", type=_positive_int, metavar="N", help="GPUs, one process each (default: the launch's, or 1)")
    add(
        *("--launch-config", "--launch_config"),
        metavar="FILE",
        help="accelerate's YAML file: the number of GPUs, and what DeepSpeed shares out between them",
    )
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
    return 1 if plan["fits"] is False else 0


def make_plan(args: argparse.Namespace) -> dict[str, Any]:
    """Estimate all parts in bytes.

    Args:
        args: `config`, `gpu_memory` and `host_memory` in GB, `gpus`, `launch_config`, `prompt_tokens` and
            `recipe_options`.

    Returns:
        What `--json` prints: `policy`, `reward_model`, `training` (parts and total), `placements` (bytes of
        `reward_model`, of it `lasting` and `passing`, `gpu` and `host` each), `free`, `chosen`, `recommended`,
        `reason`, `fits`, `suggestions`, `nearest` and `notes`. `host` is the machine's, over all processes. Without a
        GPU size `recommended` and `fits` are null.

    Raises:
        InputError: A model's configuration, or the launch's, cannot be had.
    """
    from trl_hybrid.commands.plan_fit import settings_that_fit

    estimator = _Estimator(args)
    asked = estimator.estimate({})
    plan = asked.plan
    slow = plan["chosen"] == "auto" and plan["recommended"] == "cpu"
    if plan["free"] is not None and (slow or not plan["fits"]):
        plan["suggestions"], plan["nearest"] = settings_that_fit(asked, estimator.try_options)
    return plan


class _Estimator:
    """Estimates a run with options added, and counts each model's weights once.

    Args:
        args: As for `make_plan`.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        from trl_hybrid.estimates import Launch, read_launch

        self.args = args
        launch = Launch(1) if args.launch_config is None else read_launch(args.launch_config)
        self.launch: Launch = replace(launch, processes=args.gpus or launch.processes)
        self.policies: dict[str, Policy] = {}
        self.footprints: dict[str, Footprint] = {}

    def try_options(self, added: dict[str, str]) -> "Estimate | None":
        """Return the estimate, or None where the recipe does not take these settings together."""
        try:
            return self.estimate(added)
        except ValueError:  # TRL's, of a batch that does not hold whole groups
            return None

    def estimate(self, added: dict[str, str]) -> "Estimate":
        """Estimate with options added."""
        import torch

        from trl_hybrid.commands.plan_fit import Estimate
        from trl_hybrid.estimates import training_memory, workload_of
        from trl_hybrid.reward_model.footprint import default_tokens

        options = [text for name, value in added.items() for text in (f"--{name}", value)]
        tasks, judges, training, model = parse_recipe_options(self.args.config, [*self.args.recipe_options, *options])
        policy, footprint = self._policy(model, training), self._footprint(judges)
        work = workload_of(training, tasks.max_test_rows != 0, self.launch.processes, self.args.prompt_tokens)
        parts = training_memory(policy, work, self.launch.sharing)
        quantized = judges.reward_model_load_in_4bit or judges.reward_model_load_in_8bit
        tokens = judges.reward_model_token_budget
        plan = {
            "gpus": self.launch.processes,
            "policy": {"name": model.model_name_or_path, **_sizes(policy, work)},
            "reward_model": {"name": judges.reward_model_name_or_path, "weights": footprint.weight_bytes},
            "training": {**asdict(parts), "total": parts.total},
            "placements": _placements(footprint, parts, tokens, self.launch.processes, quantized),
            "free": _free_bytes(self.args, training),
            "host": _host_bytes(self.args),
            "chosen": "resident" if quantized else judges.reward_model_placement,
        }
        plan |= _choice(plan, footprint, parts, tokens)
        plan |= {"suggestions": [], "nearest": None, "notes": list(_notes(plan, training, self.launch))}
        gpu = torch.device("cuda")
        budgets = {place: tokens or default_tokens(place, gpu) for place in plan["placements"]}
        return Estimate(plan, training, model.use_peft, budgets)

    def _policy(self, model: Any, training: Any) -> "Policy":
        from trl_hybrid.estimates import policy_of
        from trl_hybrid.preflight import check_model_found

        if repr(model) not in self.policies:
            check_model_found(model.model_name_or_path, "policy", model.model_revision, training.trust_remote_code)
            self.policies[repr(model)] = policy_of(model, training)
        return self.policies[repr(model)]

    def _footprint(self, judges: Any) -> "Footprint":
        from trl_hybrid.estimates import named_dtype, quantized_footprint
        from trl_hybrid.reward_model.footprint import measure_footprint

        name = judges.reward_model_name_or_path
        if name not in self.footprints:
            config, dtype = _reward_config(judges), named_dtype(judges.reward_model_dtype)
            self.footprints[name] = measure_footprint(config, dtype, judges.reward_model_trust_remote_code)
        bits = 4 if judges.reward_model_load_in_4bit else 8 if judges.reward_model_load_in_8bit else None
        return quantized_footprint(self.footprints[name], bits)


def _placements(
    footprint: "Footprint", parts: "TrainingMemory", tokens: int | None, processes: int, quantized: bool
) -> dict[str, dict[str, int]]:
    """Return what each placement that is to be had takes."""
    from trl_hybrid.reward_model.footprint import PLACEMENTS

    found = {}
    for placement in ("resident",) if quantized else PLACEMENTS:
        if placement == "streamed" and not footprint.streamable:
            continue
        need = footprint.on_gpu(placement, tokens)
        found[placement] = {
            "reward_model": need.total,
            "lasting": need.lasting,
            "passing": need.passing,
            "gpu": parts.need.beside(need).total,
            "host": (footprint.host_bytes(placement, processes, tokens) + parts.host) * processes,
        }
    return found


def _choice(
    plan: dict[str, Any], footprint: "Footprint", parts: "TrainingMemory", tokens: int | None
) -> dict[str, Any]:
    """Recommend a placement, and say whether the chosen one fits."""
    from trl_hybrid.reward_model.placement import choose_placement

    free, host, chosen = plan["free"], plan["host"], plan["chosen"]
    if free is None:
        return {"recommended": None, "reason": None, "fits": None}
    own_host = None if host is None else host // plan["gpus"] - parts.host
    try:
        recommended, reason = choose_placement(footprint, free, tokens, parts.need, own_host)
    except ValueError as error:
        recommended, reason = None, str(error)
    place = plan["placements"].get(recommended if chosen == "auto" else chosen)
    fits = place is not None and place["gpu"] <= free and (host is None or place["host"] <= host)
    return {"recommended": recommended, "reason": reason, "fits": fits}


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


def _free_bytes(args: argparse.Namespace, training: Any) -> int | None:
    """Return what is free of a GPU, without colocated vLLM's share; None where there is none to ask about."""
    import torch

    if args.gpu_memory is None and not torch.cuda.is_available():
        return None
    free = torch.cuda.mem_get_info()[0] if args.gpu_memory is None else int(args.gpu_memory * GB)
    if training.use_vllm and training.vllm_mode == "colocate":
        return int(free * (1 - training.vllm_gpu_memory_utilization))
    return free


def _host_bytes(args: argparse.Namespace) -> int | None:
    """Return what is free of the machine's memory; None where the machine is another one."""
    import torch

    from trl_hybrid.reward_model.host_memory import free_host_bytes

    if args.host_memory is not None:
        return int(args.host_memory * GB)
    return free_host_bytes() if args.gpu_memory is None and torch.cuda.is_available() else None


def _notes(plan: dict[str, Any], training: Any, launch: "Launch") -> Iterator[str]:
    """Say what the numbers leave out."""
    if plan["free"] is None:
        yield "There is no GPU here: give --gpu-memory (GB of one GPU) for a recommendation."
    elif plan["training"]["total"] > plan["free"]:
        yield "Training alone does not fit."
    if training.use_vllm:
        yield "vLLM's own memory is not in the table; in colocate mode its share is taken off what is free."
    if training.fsdp or (training.deepspeed and launch.sharing is None):
        yield "The policy is counted whole on each GPU: DeepSpeed (give --launch-config) or FSDP may need less."


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
    yield _line("reward model", [_gb(place["lasting"]) for place in placements.values()])
    yield _line("scoring (1)", [_gb(place["passing"]) for place in placements.values()])
    yield _line("all", [_gb(place["gpu"]) for place in placements.values()])
    yield _line("host memory, all processes (2)", [_gb(place["host"]) for place in placements.values()])
    yield ""
    offloaded = ", and what DeepSpeed offloads" if training["host"] else ""
    yield f"(1) They take turns: the largest one counts.  (2) The reward model's weights{offloaded}."
    recommended = "Recommended placement: " if plan["recommended"] else ""
    yield from (["", f"{recommended}{plan['reason']}"] if plan["reason"] else [])
    yield from ["", *plan["notes"]] if plan["notes"] else []
    yield from ["", *_verdict(plan)] if plan["free"] is not None else []


def _verdict(plan: dict[str, Any]) -> Iterator[str]:
    """Say whether what is asked for fits, and what to add where it does not."""
    place = plan["placements"].get(plan["recommended"] if plan["chosen"] == "auto" else plan["chosen"])
    there = f"{_gb(plan['free'])} GB are free on each GPU"
    there += f", {_gb(plan['host'])} GB of host memory" if plan["host"] is not None else ""
    yield f"{'Fits' if plan['fits'] else 'Does not fit'}: {f'{_sizes_of(place)}; ' if place else ''}{there}."
    if plan["suggestions"]:
        yield "With the reward model on the GPU, add:" if plan["fits"] else "What fits, by the same estimate; add:"
        yield from (f"  {_added(one)}   ({_sizes_of(one)})" for one in plan["suggestions"])
    elif plan["nearest"]:
        yield "No smaller settings were found that fit. The nearest; add:"
        yield f"  {_added(plan['nearest']) or 'nothing'}   ({_sizes_of(plan['nearest'])})"


def _added(suggestion: dict[str, Any]) -> str:
    return " ".join(f"--{name} {value}" for name, value in suggestion["options"].items())


def _sizes_of(place: dict[str, Any]) -> str:
    host = f", {_gb(place['host'])} GB of host memory" if place["host"] else ""
    return f"{_gb(place['gpu'])} GB on each GPU{host}"


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
