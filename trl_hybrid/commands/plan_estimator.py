"""One estimate for `trl-hybrid plan`: all parts of a run's memory, and whether what is asked for fits."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from trl_hybrid.commands.plan_fit import Estimate
from trl_hybrid.commands.recipe_options import parse_recipe_options
from trl_hybrid.memory.estimates import (
    Launch,
    named_dtype,
    policy_of,
    quantized_footprint,
    read_launch,
    training_memory,
    workload_of,
)
from trl_hybrid.memory.training import Policy, TrainingMemory, Workload
from trl_hybrid.models.check import check_model_found
from trl_hybrid.reward_model.footprint import PLACEMENTS, Footprint, default_tokens, measure_footprint
from trl_hybrid.reward_model.host_memory import free_host_bytes
from trl_hybrid.reward_model.loading import Source, load_config
from trl_hybrid.reward_model.placement import choose_placement


class Estimator:
    """Estimates a run with options added, and counts each model's weights once.

    The arguments are the command's options, sizes in bytes.

    Raises:
        InputError: The launch's configuration cannot be read.
    """

    def __init__(
        self,
        config: str | None,
        options: Sequence[str],
        prompt_tokens: int,
        gpus: int | None = None,
        launch_config: str | None = None,
        gpu_bytes: int | None = None,
        host_bytes: int | None = None,
    ) -> None:
        self.config, self.options, self.prompt_tokens = config, list(options), prompt_tokens
        launch = Launch(1) if launch_config is None else read_launch(launch_config)
        self.launch = replace(launch, processes=gpus or launch.processes)
        self.gpu_bytes, self.host_bytes = gpu_bytes, host_bytes
        self.policies: dict[str, Policy] = {}
        self.footprints: dict[str, Footprint] = {}

    def try_options(self, added: dict[str, str]) -> Estimate | None:
        """Return the estimate, or None where the recipe does not take these settings together."""
        try:
            return self.estimate(added)
        except ValueError:  # TRL's, of a batch that does not hold whole groups
            return None

    def estimate(self, added: dict[str, str]) -> Estimate:
        """Estimate with options added."""
        options = [text for name, value in added.items() for text in (f"--{name}", value)]
        tasks, judges, training, model = parse_recipe_options(self.config, [*self.options, *options])
        policy, footprint = self._policy(model, training), self._footprint(judges)
        work = workload_of(training, tasks.max_test_rows != 0, self.launch.processes, self.prompt_tokens)
        parts = training_memory(policy, work, self.launch.sharing)
        served = judges.reward_model_server_url
        quantized = judges.reward_model_load_in_4bit or judges.reward_model_load_in_8bit
        tokens = judges.reward_model_token_budget
        plan = {
            "gpus": self.launch.processes,
            "policy": {"name": model.model_name_or_path, **_sizes(policy, work)},
            "reward_model": {
                "name": judges.reward_model_name_or_path,
                "weights": footprint.weight_bytes,
                "server": served,
            },
            "training": {**asdict(parts), "total": parts.need.total},
            "placements": _behind_servers(parts, self.launch.processes)
            if served
            else _placements(footprint, parts, tokens, self.launch.processes, quantized),
            "free": _free_bytes(self.gpu_bytes, training),
            "host": self._host_bytes(),
            "chosen": "server" if served else "resident" if quantized else judges.reward_model_placement,
        }
        plan |= _choice(plan, footprint, parts, tokens)
        plan |= {"suggestions": [], "nearest": None, "notes": list(_notes(plan, training, self.launch))}
        gpu = torch.device("cuda")
        budgets = {place: tokens or default_tokens(place, gpu) for place in plan["placements"]}
        return Estimate(plan, training, model.use_peft, budgets)

    def _host_bytes(self) -> int | None:
        if self.host_bytes is not None:
            return self.host_bytes
        return free_host_bytes() if self.gpu_bytes is None and torch.cuda.is_available() else None

    def _policy(self, model: Any, training: Any) -> Policy:
        if repr(model) not in self.policies:
            check_model_found(model.model_name_or_path, "policy", model.model_revision, training.trust_remote_code)
            self.policies[repr(model)] = policy_of(model, training)
        return self.policies[repr(model)]

    def _footprint(self, judges: Any) -> Footprint:
        name = judges.reward_model_name_or_path
        if name not in self.footprints:
            config, dtype = _reward_config(judges), named_dtype(judges.reward_model_dtype)
            self.footprints[name] = measure_footprint(config, dtype, judges.reward_model_trust_remote_code)
        bits = 4 if judges.reward_model_load_in_4bit else 8 if judges.reward_model_load_in_8bit else None
        return quantized_footprint(self.footprints[name], bits)


def _placements(
    footprint: Footprint, parts: TrainingMemory, tokens: int | None, processes: int, quantized: bool
) -> dict[str, dict[str, int]]:
    """Return what each placement that is to be had takes."""
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
            "host": (footprint.host_bytes(placement, processes) + parts.host) * processes,
        }
    return found


def _behind_servers(parts: TrainingMemory, processes: int) -> dict[str, dict[str, int]]:
    """Return what a reward model behind servers takes here: nothing."""
    own = {"reward_model": 0, "lasting": 0, "passing": 0}
    return {"server": {**own, "gpu": parts.need.total, "host": parts.host * processes}}


def _choice(plan: dict[str, Any], footprint: Footprint, parts: TrainingMemory, tokens: int | None) -> dict[str, Any]:
    """Recommend a placement, and say whether the chosen one fits."""
    free, host, chosen = plan["free"], plan["host"], plan["chosen"]
    if free is None:
        return {"recommended": None, "reason": None, "fits": None}
    if parts.need.total > free:  # where the reward model goes makes no difference
        return {"recommended": None, "reason": None, "fits": False}
    if chosen == "server":
        place = plan["placements"]["server"]
        return {"recommended": None, "reason": None, "fits": host is None or place["host"] <= host}
    own_host = None if host is None else host // plan["gpus"] - parts.host
    try:
        recommended, reason = choose_placement(footprint, free, tokens, parts.need, own_host)
    except ValueError as error:
        recommended, reason = None, str(error)
    place = plan["placements"].get(recommended if chosen == "auto" else chosen)
    fits = place is not None and place["gpu"] <= free and (host is None or place["host"] <= host)
    return {"recommended": recommended, "reason": reason, "fits": fits}


def _reward_config(judges: Any) -> Any:
    name, revision = judges.reward_model_name_or_path, judges.reward_model_revision
    trusted = judges.reward_model_trust_remote_code
    check_model_found(name, "reward model", revision, trusted, scores=True)
    return load_config(Source(name, revision, trusted))


def _sizes(policy: Policy, work: Workload) -> dict[str, int]:
    return {
        "parameters": policy.parameters,
        "trained_parameters": policy.trained_parameters,
        "rows": work.rows,
        "generated_rows": work.generated_rows,
        "prompt_tokens": work.prompt_tokens,
        "completion_tokens": work.completion_tokens,
    }


def _free_bytes(given: int | None, training: Any) -> int | None:
    """Return what is free of a GPU, without colocated vLLM's share; None where there is none to ask about."""
    if given is None and not torch.cuda.is_available():
        return None
    free = torch.cuda.mem_get_info()[0] if given is None else given
    if training.use_vllm and training.vllm_mode == "colocate":
        return int(free * (1 - training.vllm_gpu_memory_utilization))
    return free


def _notes(plan: dict[str, Any], training: Any, launch: Launch) -> Iterator[str]:
    """Say what the numbers leave out."""
    if plan["free"] is None:
        yield "There is no GPU here: give --gpu_memory (GB of one GPU) for a recommendation."
    elif plan["training"]["total"] > plan["free"]:
        yield "Training alone does not fit."
    if server := plan["reward_model"]["server"]:
        yield f"The reward model is behind {server}: only its tokenizer and configuration are loaded here."
    if training.use_vllm:
        yield "vLLM's own memory is not in the table; in colocate mode its share is taken off what is free."
    if training.fsdp or (training.deepspeed and launch.sharing is None):
        yield "The policy is counted whole on each GPU: DeepSpeed (give --launch_config) or FSDP may need less."
