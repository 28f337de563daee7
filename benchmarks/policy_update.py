"""Claim: the policy's update without repeated prompts and without padding, the same gradients in less time and memory.

An update is what one optimizer step computes: the loss and the gradients over all of its micro-batches, by the
trainer's own `training_step`, without generation and without the optimizer. Three ways, side by side:

  TRL             TRL's: rows shuffled, each prompt computed once a completion, padded to the generation's longest
  TRL, sorted     the same with rows sorted by length and each micro-batch padded to its own longest
  shared prompts  `HybridGRPOTrainer`'s with `shared_prompts`: each prompt once a group, no padding

Each way lives in a process of its own with the same weights and rows. The first update of a case gives memory, tokens
and gradients; then the ways take turns, so that drift of the machine hits all alike. Ratios are medians over turns,
their least and most in brackets. Peak memory is the process's largest resident set on a CPU, what torch has allocated
at most on a GPU; "extra" is that less what was held before the update, so gradients count. The gradient's difference
is the norm of what it differs by from TRL's, as a part of TRL's norm; tokens are those that went through the policy.

On a CPU the policy is random weights in SmolLM2-135M's shape with 12 of its 30 layers, in fp32: TRL's way needs 7 GB
so, 18 GB with `--layers 30`, beside 4 GB that the three processes hold; on a GPU in TinyLlama's, in bf16 and with
gradient checkpointing, as the recipes there train. All weights are trained, where a case does not say LoRA.

{cases}

Examples:
  python benchmarks/policy_update.py                         all cases: 5 to 10 minutes on two quiet CPU cores
  python benchmarks/policy_update.py --quick                 all works: a minute
  python benchmarks/policy_update.py --layers 6 --repeats 1  a quick look
  python benchmarks/policy_update.py --cases short gsm8k --repeats 5
  python benchmarks/policy_update.py --show benchmarks/results/policy_update.json      the table again, not measured
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from launches.models import ROOT
from reward_model_scoring import describe_machine
from tqdm import tqdm
from updates.cases import CASES, EMBEDDED, SHAPES, Case, make_rows
from updates.crew import Crew, measure
from updates.figures import table, target_lines, targets_of, with_ratios
from updates.ways import WAYS, Setting

from trl_hybrid.runs.folder import write_json


RESULTS = ROOT / "benchmarks" / "results"
OTHER_RESULTS = ROOT / "runs"
CPU_LAYERS = 12
"""Of SmolLM2-135M's, so that activations of padded rows find room on a small machine."""
LOADING_SECONDS = 20
"""What three processes take to import and load, about."""


def cases_of(arguments: argparse.Namespace) -> list[Case]:
    """Return what is to be measured, cases of one policy next to each other."""
    cases = [case for case in CASES if not arguments.cases or case.name in arguments.cases]
    if arguments.quick:
        return [replace(case, rows=max(16, case.group), micro_batch=min(16, case.micro_batch)) for case in cases]
    factor = arguments.rows_factor
    return [case if case.embedded else replace(case, rows=factor * case.rows) for case in cases]


def setting_of(case: Case, arguments: argparse.Namespace) -> Setting:
    """Return what a case trains, and where."""
    return Setting(
        shape=EMBEDDED if case.embedded else arguments.shape,
        layers=arguments.layers,
        lora=case.lora,
        device=arguments.device,
        bf16=arguments.bf16,
        threads=arguments.threads,
        checkpointing=arguments.gradient_checkpointing and not case.embedded,
    )


def expected_seconds(cases: Sequence[Case], arguments: argparse.Namespace) -> float:
    """Estimate how long all takes, from how fast this machine multiplies two matrices now."""
    shape = SHAPES[arguments.shape]
    hidden, layers = shape["hidden_size"], arguments.layers or shape["num_hidden_layers"]
    grouped = 1 + shape["num_key_value_heads"] / shape["num_attention_heads"]
    layer = hidden * (2 * hidden * grouped + 3 * shape["intermediate_size"])
    weights = layers * layer + 0.25 * hidden * shape["vocab_size"]  # the head is asked for answers alone
    tokens = sum(case.padded_tokens for case in cases if not case.embedded)
    factor = 8 if arguments.gradient_checkpointing else 6
    passes = 1 + arguments.repeats * (2 if arguments.device == "cuda" else 1)
    loads = len({(case.lora, case.embedded) for case in cases})
    # All ways compute about 2.3 times TRL's tokens; a model reaches about three quarters of a product's speed.
    return loads * LOADING_SECONDS + 2.3 * passes * factor * weights * tokens / (0.75 * speed_of_products(arguments))


def speed_of_products(arguments: argparse.Namespace) -> float:
    """Return how many additions and multiplications a second a product of matrices reaches."""
    size, dtype = (1024, torch.float32) if arguments.device == "cpu" else (8192, torch.bfloat16)
    one = torch.ones(size, size, device=arguments.device, dtype=dtype)
    torch.set_num_threads(arguments.threads)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        (one @ one).sum().item()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def run(cases: Sequence[Case], arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    """Measure every case, and write the figures after each."""
    passes = len(WAYS) * (1 + arguments.repeats)
    with tqdm(total=passes * sum(case.padded_tokens for case in cases), unit="token", unit_scale=True) as bar:
        for setting, group in groupby(cases, lambda case: setting_of(case, arguments)):
            with tempfile.TemporaryDirectory() as folder:
                for case, ways in measured(setting, list(group), arguments.repeats, Path(folder), bar):
                    found = with_ratios(asdict(case) | describe_rows(case) | {"ways": ways})
                    report["cases"][case.name] = found | {"targets": targets_of(case.name, found, setting)}
                    write_json(arguments.output, report)


def measured(
    setting: Setting, cases: Sequence[Case], repeats: int, folder: Path, bar: Any
) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Measure cases of one policy in one crew; give each with its ways' figures."""
    crew = Crew(list(WAYS), setting, folder)
    try:
        crew.ready()
        for case in cases:
            bar.set_description(case.name)
            yield case, measure(crew, list(WAYS), case, repeats, lambda case=case: bar.update(case.padded_tokens))
    finally:
        crew.stop()


def describe_rows(case: Case) -> dict[str, int]:
    """Count a case's tokens: as rows without padding, and without repeated prompts."""
    rows = make_rows(case, vocab_size=100)
    prompts, answers = (rows[f"{name}_mask"].sum(1) for name in ("prompt", "completion"))
    return {
        "row_tokens": int((prompts + answers).sum()),
        "distinct_tokens": int(prompts[:: case.group].sum() + answers.sum()),
    }


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    names = [case.name for case in CASES]
    lines = "\n".join(["Cases, tokens of a prompt and of its answers:", *(f"  {describe(case)}" for case in CASES)])
    description = (__doc__ or "").replace("{cases}", lines)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny weights, 16 rows, one turn: shows that all works")
    parser.add_argument("--cases", nargs="+", choices=names, metavar="NAME", help="only these, in quotes")
    parser.add_argument("--shape", choices=SHAPES, help="default: smollm2-135m, on a GPU tinyllama")
    parser.add_argument(
        "--layers", type=int, help="fewer than the shape has; default: all, of smollm2-135m on a CPU 12"
    )
    parser.add_argument("--repeats", type=int, help="turns that are timed; default 3, 1 with --quick")
    parser.add_argument("--rows-factor", type=int, help="times the rows of a step; default 1, on a GPU 2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a process on the CPU")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="default: on a GPU")
    parser.add_argument(
        "--gradient-checkpointing", action=argparse.BooleanOptionalAction, help="default: on a GPU, as the recipes"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON file; default: in benchmarks/results/ for all cases in full, else in runs/"
    )
    parser.add_argument(
        "--show", type=Path, metavar="FILE", help="print the table of figures that were written before"
    )
    return complete(parser.parse_args())


def describe(case: Case) -> str:
    """Say in a line what a case is."""
    least, most = case.answers
    return (
        f"{case.name:20} {case.prompt:3}; {least:3} to {most:3}, groups of {case.group}, "
        f"{case.rows} rows a step, {case.micro_batch} a forward"
    )


def complete(arguments: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on the machine and on other options."""
    on_gpu = torch.cuda.is_available()
    changed = ("quick", "cases", "layers", "shape", "bf16", "gradient_checkpointing", "rows_factor")
    whole = all(getattr(arguments, name) in (None, False) for name in changed)
    name = "policy_update_cuda.json" if on_gpu else "policy_update.json"
    arguments.device = "cuda" if on_gpu else "cpu"
    arguments.shape = arguments.shape or ("tiny" if arguments.quick else "tinyllama" if on_gpu else "smollm2-135m")
    if arguments.shape == "smollm2-135m" and not on_gpu:
        arguments.layers = arguments.layers or CPU_LAYERS
    arguments.repeats = arguments.repeats or (1 if arguments.quick else 3)
    arguments.rows_factor = arguments.rows_factor or (2 if on_gpu else 1)
    arguments.output = arguments.output or (RESULTS if whole else OTHER_RESULTS) / name
    for name in ("bf16", "gradient_checkpointing"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, on_gpu)
    return arguments


def main() -> None:
    """Measure, print, and write the figures."""
    arguments = read_arguments()
    if arguments.show:
        return print_report(json.loads(arguments.show.read_text()))
    cases = cases_of(arguments)
    if not arguments.quick:
        print(f"About {math.ceil(expected_seconds(cases, arguments) / 60)} minutes.", flush=True)
    settings = ("device", "shape", "layers", "bf16", "gradient_checkpointing", "repeats", "quick")
    report: dict[str, Any] = {
        "machine": describe_machine(arguments.device, arguments.threads),
        **{name: getattr(arguments, name) for name in settings},
        "model": SHAPES[arguments.shape],
        "cases": {},
    }
    run(cases, arguments, report)
    print_report(report)
    print(f"\nWritten to {arguments.output}" + (": with --quick the figures say nothing." if arguments.quick else "."))
    return None


def print_report(report: dict[str, Any]) -> None:
    """Print the table and how the targets came out."""
    print("\n".join([*table(report["cases"]), "", *target_lines(report["cases"])]))


if __name__ == "__main__":
    main()
