"""Claim: scoring costs the work of the real tokens only, and weights in CPU memory cost next to nothing.

One run, one random Qwen2-shaped reward model, the same rows of token ids: every placement of `RewardModel` beside
TRL's built-in path, one row at a time without padding, and the usual ways to keep weights in CPU memory.

Sections:
  maths        64 completions of 8 prompts: prompts of 60 to 130 tokens, log-normal completions of 550 on average and
               2048 at most. On a CPU 0.45 of that: rows of 290 on average, the longest about 770.
  long_prompt  64 completions of 200 tokens, prompts of 300: what sharing a group's prompt is worth.
  scaling      16, 64 and 256 completions of the maths kind, one and two processes, each scoring its part.

Each way lives in a process of its own, and times are medians of passes that the ways take in turn, so that drift hits
all alike; on a GPU, which cannot hold ten models, one way follows the other. Every pass has rows of its own, as every
step of training has: kernels that plan for each new shape pay here too. The first pass warms up, and gives scores and
memory; a way that takes more than 120 s for it is timed by it alone. A last pass, untimed, says which kernels took the
time and by which path attention went.

Weights are fp32 on a CPU, bf16 on a GPU. Differences are from one row at a time in fp32. Extra memory is the peak of
the first pass less what was held before it: resident set size on a CPU, what torch has allocated on a GPU, where the
peak is also held against the package's own estimate. What libraries log goes to stderr.

Examples:
  python benchmarks/reward_model_scoring.py --quick                                     all works: a few minutes
  python benchmarks/reward_model_scoring.py --output results.json                       a CPU's figures
  python benchmarks/reward_model_scoring.py --shape acemath-7b --output results.json    a GPU's; 15 GB in TMPDIR
  python benchmarks/reward_model_scoring.py --sections maths --ways resident trl one_row
  python benchmarks/reward_model_scoring.py --ways streamed --threads 1      as under accelerate launch
  python benchmarks/reward_model_scoring.py --ways resident one_row served --vllm .venv-vllm/bin/vllm
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from scoring.crew import Crew, MakeRows, Result, measure
from scoring.serving import server_of
from scoring.ways import OURS, WAYS, Setting
from scoring.workload import SHAPES, Row, long_prompt_rows, make_model, maths_rows
from transformers import AutoConfig

from trl_hybrid.reward_model.footprint import measure_footprint


SECTIONS = ("maths", "long_prompt", "scaling")
SCALING_WAYS = ("resident", "streamed", "zero3")
SCALING_ROWS = [16, 64, 256]
LARGE_CALL = 16384
"""Tokens from which streaming is to keep up with resident weights; the targets on a GPU are about such calls."""
SPEEDS = {
    ("cpu", "maths"): [("resident", "trl", 4.5), ("resident", "one_row", 1.1)],
    ("cpu", "long_prompt"): [("resident", "one_row", 1.6)],
    ("cuda", "maths"): [
        ("resident", "trl", 3),
        ("streamed", "resident", 0.9),
        ("streamed", "cpu_offload", 4),
        ("streamed", "zero3_engine", 2),
    ],
    ("cuda", "long_prompt"): [("streamed", "resident", 0.9)],
    ("cuda", "scaling"): [("streamed", "resident", 0.9)],
}
"""What the package promises: so many times the rival's speed, way before rival."""
LIBRARIES = ("torch", "transformers", "trl", "accelerate", "deepspeed")


PLAN_TOLERANCE = 0.15
"""How far an estimate of a GPU's memory may be from the peak, as a share of the peak."""


def workloads_of(section: str, arguments: argparse.Namespace) -> list[MakeRows]:
    """Return what makes the rows of a section's workloads, pass by pass."""
    vocab_size = SHAPES[arguments.shape]["vocab_size"]
    shrink = 0.1 if arguments.quick else 1.0
    scale = shrink * (0.45 if arguments.device == "cpu" else 1.0)
    completions = 16 if arguments.quick else 64
    if section == "long_prompt":
        return [lambda turn: long_prompt_rows(completions, shrink, vocab_size, turn)]
    counts = [completions] if section == "maths" else [8, 16] if arguments.quick else SCALING_ROWS
    return [partial(maths_rows, count, scale, vocab_size) for count in counts]


def run_section(section: str, arguments: argparse.Namespace, setting: Setting) -> list[Result]:
    """Measure a section, print its tables and targets, and return its workloads' figures."""
    cases = [(name, 1) for name in arguments.ways]
    if section == "scaling":
        cases = [(name, processes) for name, _ in cases if name in SCALING_WAYS for processes in (1, 2)]
    crews = [Crew(name, setting, processes) for name, processes in cases]
    workloads = workloads_of(section, arguments)
    report = [describe_rows(make_rows(0)) | {"ways": {}} for make_rows in workloads]
    for group in [crews] if setting.device == "cpu" else [[crew] for crew in crews]:
        for workload, ways in zip(report, measure(group, workloads, arguments.repeats), strict=True):
            workload["ways"] |= ways
    for workload in report:
        add_differences(workload["ways"], "one_row" if setting.device == "cpu" else "fp32")
        if setting.device == "cuda":
            add_plans(workload["ways"], setting)
        workload["targets"] = targets_of(section, workload, setting.device)
        print_workload(section, workload)
    return report


def describe_rows(rows: Sequence[Row]) -> Result:
    """Count rows and tokens."""
    lengths = [len(row) for row in rows]
    return {
        "rows": len(rows),
        "real_tokens": sum(lengths),
        "mean": sum(lengths) / len(lengths),
        "longest": max(lengths),
    }


def add_differences(ways: dict[str, Result], reference: str) -> None:
    """Put the largest difference of scores into the results, NaN if there is one, and take the scores out."""
    scores = {name: torch.tensor(result.pop("scores")) for name, result in ways.items() if "scores" in result}
    for name in scores if reference in scores else ():
        ways[name]["largest_difference"] = (scores[name] - scores[reference]).abs().max().item()


def add_plans(ways: dict[str, Result], setting: Setting) -> None:
    """Put the package's own estimate of the GPU's memory beside each placement's peak."""
    footprint = measure_footprint(AutoConfig.from_pretrained(setting.folder), setting.dtype)
    for name, placement in OURS.items():
        if "peak_bytes" in ways.get(name, {}):
            ways[name]["planned_bytes"] = footprint.on_gpu(placement).total


def quotient(ways: dict[str, Result], rival: str, way: str, key: str = "median_seconds") -> float | None:
    """How many times the rival's figure is the way's; None where one did not run."""
    theirs, mine = (ways.get(name, {}).get(key) for name in (rival, way))
    return theirs / mine if theirs and mine else None


def print_workload(section: str, workload: Result) -> None:
    """Print one line a way; ratios are speed, so that more is faster."""
    ways = workload["ways"]
    rivals = ("resident",) if section == "scaling" else ("trl", "one_row")
    print("\n{}: {rows} rows, {mean:.0f} tokens on average, {longest} at most".format(section, **workload))
    header = ("seconds", "rows/s", *(f"x {rival}" for rival in rivals), "extra MB", "peak MB", "difference")
    print(f"{'way':14}" + "".join(f"{title:>12}" for title in header))
    for name, result in ways.items():
        if "not_run" in result:
            print(f"{name:14}  not run: {result['not_run']}")
            continue
        seconds = result["median_seconds"]
        cells = [f"{seconds:.3f}", f"{workload['rows'] / seconds:.2f}"]
        cells += [cell(quotient(ways, rival, name), ".2f") for rival in rivals]
        cells += [f"{result[key] / 1e6:,.0f}" for key in ("extra_bytes", "peak_bytes")]
        cells.append(cell(result.get("largest_difference"), ".1e"))
        print(f"{name:14}" + "".join(f"{text:>12}" for text in cells))
    for entry in workload["targets"]:
        print("target: {claim}: {figure} ({bound}): {outcome}".format(figure=cell(entry["value"], ".3g"), **entry))


def cell(value: float | None, form: str) -> str:
    """Write a figure, a dash where there is none."""
    return "-" if value is None else format(value, form)


def target(claim: str, value: float | None, bound: float, at_least: bool = True) -> Result:
    """Hold a figure against its bound."""
    outcome = "not measured"
    if value is not None:
        outcome = "met" if (value >= bound if at_least else value <= bound) else "missed"
    return {"claim": claim, "value": value, "bound": f"{'>=' if at_least else '<='} {bound:.3g}", "outcome": outcome}


def targets_of(section: str, workload: Result, device: str) -> list[Result]:
    """Hold a workload's figures against what the package promises for this device."""
    ways = workload["ways"]
    large = device == "cpu" or workload["real_tokens"] >= LARGE_CALL
    targets = [
        target(f"{way}, times {rival}'s speed", quotient(ways, rival, way), least)
        for way, rival, least in (SPEEDS.get((device, section), []) if large else [])
    ]
    if (device, section) == ("cuda", "maths"):
        peak = ways.get("streamed", {}).get("peak_bytes")
        targets.append(target("streamed, GB on the GPU", peak and peak / 1e9, 4, at_least=False))
    if (device, section) == ("cuda", "scaling") and workload["rows"] == max(SCALING_ROWS):  # fills every forward
        targets += [plan_target(name, ways[name]) for name in OURS if "planned_bytes" in ways.get(name, {})]
    if (device, section) == ("cpu", "maths"):
        extra = quotient(ways, "resident", "trl", "extra_bytes")
        targets.append(target("resident, part of TRL's extra memory", extra, 1 / 3, at_least=False))
    for name in OURS if device == "cpu" and section != "scaling" else ():
        difference = ways.get(name, {}).get("largest_difference")
        targets.append(target(f"{name}, largest difference", difference, 1e-4, at_least=False))
    return targets


def plan_target(name: str, way: Result) -> Result:
    """Hold the estimate of a way's memory against its peak."""
    distance = abs(way["planned_bytes"] / way["peak_bytes"] - 1)
    return target(f"{name}, estimated memory's distance from the peak", distance, PLAN_TOLERANCE, at_least=False)


def describe_machine(device: str, threads: int) -> Result:
    """Say on what was measured, and with how many threads a process: no names, no paths."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES if importlib.util.find_spec(name)}
    return {
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "versions": versions | {"python": platform.python_version()},
    }


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few short rows, one pass: shows that all works")
    parser.add_argument("--shape", choices=SHAPES, default="small", help="the model's")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="see scoring/ways.py; default: all")
    parser.add_argument("--repeats", type=int, help="timed passes; default 3, 1 with --quick")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a process on the CPU")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="make the model there, or find it, and keep it")
    parser.add_argument("--vllm", metavar="COMMAND", help="vLLM's command, which then serves the model beside")
    parser.add_argument("--output", type=Path, help="write all figures to this JSON file, after each section")
    arguments = parser.parse_args()
    arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments.repeats = arguments.repeats or (1 if arguments.quick else 3)
    # On a CPU `one_row` is in fp32; on a GPU's machine the CPU is too slow for a large model.
    senseless = "fp32" if arguments.device == "cpu" else "cpu"
    arguments.ways = arguments.ways or [name for name in WAYS if name != senseless]
    return arguments


@contextlib.contextmanager
def model_folder(arguments: argparse.Namespace) -> Iterator[str]:
    """Give the folder of the model: one that lasts as long as the context, or the one that is kept."""
    with tempfile.TemporaryDirectory() as passing:
        folder = Path(arguments.model or passing)
        if not (folder / "tokenizer_config.json").exists():  # what is written last
            dtype = Setting(str(folder), arguments.device, arguments.threads).dtype
            make_model(arguments.shape, str(folder), arguments.device, dtype)
        yield str(folder)


def main() -> None:
    """Measure, print, and write the figures."""
    arguments = read_arguments()
    os.environ.setdefault("DS_ACCELERATOR", arguments.device)  # or DeepSpeed warns that it has to guess
    report = {
        "machine": describe_machine(arguments.device, arguments.threads),
        "model": SHAPES[arguments.shape] | {"shape": arguments.shape},
        "quick": arguments.quick,
        "repeats": arguments.repeats,
        "sections": {},
    }
    with model_folder(arguments) as folder:
        setting = Setting(folder, arguments.device, arguments.threads)
        with server_of(arguments.vllm, setting):
            for section in arguments.sections:
                report["sections"][section] = run_section(section, arguments, setting)
                if arguments.output:
                    arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.quick:
        print("\nWith --quick the figures say nothing: the targets are about longer rows.")


if __name__ == "__main__":
    main()
