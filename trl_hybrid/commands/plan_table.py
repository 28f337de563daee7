"""The table of `trl-hybrid plan`, and what it says below."""

from collections.abc import Iterator, Sequence
from typing import Any

from trl_hybrid.memory.size import GB


PART_LABELS = {
    "weights": "policy weights",
    "reference": "reference model",
    "optimizer": "optimizer",
    "gradients": "gradients",
    "activations": "activations (1)",
    "generation": "generation (1)",
    "context": "CUDA context",
}


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that `trl-hybrid plan` prints."""
    policy, training, placements = plan["policy"], plan["training"], plan["placements"]
    yield (
        f"Policy: {policy['name']}, {policy['parameters'] / 1e6:,.0f} M parameters, "
        f"{policy['trained_parameters'] / 1e6:,.1f} M trained; {policy['rows']} rows of {policy['prompt_tokens']} + "
        f"{policy['completion_tokens']} tokens a forward, {policy['generated_rows']} generated at once"
    )
    yield f"Reward model: {plan['reward_model']['name']}"
    yield ""
    yield _line("GB (10^9 bytes) on each GPU", list(placements))
    for part, label in PART_LABELS.items():
        if training[part] or part in ("activations", "generation"):
            yield _line(label, [_gb(training[part])] * len(placements))
    yield _line("reward model", [_gb(place["lasting"]) for place in placements.values()])
    yield _line("scoring (1)", [_gb(place["passing"]) for place in placements.values()])
    yield _line("all", [_gb(place["gpu"]) for place in placements.values()])
    yield _line("host memory, all processes (2)", [_gb(place["host"]) for place in placements.values()])
    yield ""
    offloaded = ", and what DeepSpeed offloads" if training["host"] else ""
    yield f"(1) They take turns: the largest one counts.  (2) The reward model's weights{offloaded}."
    yield "Activations are an upper bound: full rows, each with its prompt; shared_prompts computes a prompt once."
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
