"""How many completions a second with one and two processes, and what a step's time goes into.

Each case is an `accelerate launch` of its own with a configuration of `accelerate_configs/`, as a user starts it, over
the same completions a step: with two processes each has half of them. TRL's profiling contexts give the time of
generation, reward model and verifier (what is left of verifying once scoring is over); "loss" is loss, backward and
optimizer, "other" is waiting for other processes, log-probabilities, combining and logging. Parts are means over
processes and steps, completions a second go by the median step of the slowest process; the first steps warm up. A case
whose gradient is not finite at every step has not run.

Shapes:
  embedded  the embedded models and additions, on a CPU or GPU: one process; two under DDP, ZeRO-2 and ZeRO-3, with the
            reward model resident and under ZeRO-3 of its own. Processes on one CPU share its cores: do not expect two
            to be twice as fast.
  real      random weights in the shapes of TinyLlama with LoRA and of AceMath-7B-RM, completions of 384 tokens that
            never end early: resident, streamed and zero3 on one GPU, on two where there are. Peak memory is held
            against the estimates of `trl-hybrid plan`. Needs a GPU and 17 GB in TMPDIR.
  tiny      the same with tiny shapes, on any machine: shows that `real` works.

Examples:
  python benchmarks/scaling.py --quick                                    all works: a few minutes
  python benchmarks/scaling.py                                            a CPU's figures
  python benchmarks/scaling.py --shape real                               a GPU's
"""

import argparse
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from launches.cases import EMBEDDED, Case, launch, real_cases
from launches.figures import draw, table
from launches.models import PROMPT_TOKENS, embedded, random_models
from reward_model_scoring import describe_machine
from tqdm import tqdm

from trl_hybrid.commands.plan import make_plan
from trl_hybrid.reward_model.footprint import PLACEMENTS
from trl_hybrid.runs.folder import write_json


ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scaling"
QUICK_RESULTS = ROOT / "runs" / "scaling_quick"
GROUP = 8
WARM_UP = 2
LORA = {"r": 32, "lora_alpha": 64, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def training_of(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the trainer's settings: the completions of a step are shared by the processes."""
    own = arguments.rows // case.processes
    together = own if arguments.shape == "embedded" else min(GROUP, own)
    real = arguments.shape == "real"
    return {
        "num_generations": GROUP,
        "per_device_train_batch_size": together,
        "gradient_accumulation_steps": own // together,
        "max_completion_length": 384 if real else 40,
        "max_steps": arguments.steps + WARM_UP,
        "learning_rate": 0.0,  # every step has the same policy
        "gradient_checkpointing": real,
        "model_init_kwargs": {"dtype": "bfloat16" if real else "float32"},
        "bf16": real,
        "use_cpu": arguments.device == "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def planned_bytes(case: Case, models: dict[str, Any], training: dict[str, Any]) -> int:
    """Ask `trl-hybrid plan` for what a GPU will need."""
    names = ("per_device_train_batch_size", "gradient_accumulation_steps", "max_completion_length")
    options = {name: training[name] for name in (*names, "gradient_checkpointing")} | {
        "num_generations": GROUP,
        "max_test_rows": 0,
        "dtype": training["model_init_kwargs"]["dtype"],
        "model_name_or_path": models["policy"],
        "reward_model_name_or_path": models["reward_model"],
    }
    plan = make_plan(
        argparse.Namespace(
            config=None,
            gpu_memory=1000.0,  # any: what is free is not looked at
            host_memory=None,
            gpus=case.processes,
            launch_config=str(ROOT / "accelerate_configs" / f"{case.launch}.yaml"),
            prompt_tokens=PROMPT_TOKENS + 20,  # roles and marks
            recipe_options=[text for name, value in options.items() for text in (f"--{name}", str(value))],
        )
    )
    return plan["placements"][case.placement]["gpu"]


def run(arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    """Launch every case, and write the figures after each."""
    cases = list(EMBEDDED) if arguments.shape == "embedded" else real_cases(torch.cuda.device_count())
    cases = [case for case in cases if not arguments.launches or case.launch in arguments.launches]
    cases = [case for case in cases if not arguments.placements or case.placement in arguments.placements]
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(arguments.shape, Path(folder) / "models")
        for number, case in enumerate(tqdm(cases, unit="launch")):
            training = training_of(case, arguments)
            settings = {**models, "training": training, "warm_up": WARM_UP, "lora": LORA}
            found = launch(case, settings, Path(folder) / str(number), arguments.device == "cpu", training["bf16"])
            if arguments.shape != "embedded" and "not_run" not in found:
                found["planned_bytes"] = planned_bytes(case, models, training)
            report["cases"][case.label] = found
            write_json(arguments.output / f"{arguments.shape}_{arguments.device}.json", report)


def make_models(shape: str, folder: Path) -> dict[str, Any]:
    """Return where the models lie, and the problems."""
    if shape == "embedded":
        return embedded()
    names = ("tinyllama", "acemath-7b") if shape == "real" else ("tiny", "small")
    folder.mkdir()
    return apart(random_models, *names, folder, torch.bfloat16 if shape == "real" else torch.float32)


def apart(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Call in a process of its own, which leaves nothing on the GPU that is measured."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("embedded", "real", "tiny"), default="embedded")
    launches = ("cpu", "single_gpu", "multi_gpu", "zero2", "zero3")
    parser.add_argument("--launches", nargs="+", choices=launches, metavar="NAME", help="only these configurations")
    parser.add_argument("--placements", nargs="+", choices=PLACEMENTS, metavar="NAME", help="only these placements")
    parser.add_argument("--steps", type=int, help="timed steps; default 10, 2 with --quick")
    parser.add_argument("--rows", type=int, help="completions a step; default 64, 16 with --quick")
    parser.add_argument("--quick", action="store_true", help="shows that all works; writes into runs/")
    parser.add_argument("--output", type=Path, help="folder of the JSON file and the picture")
    arguments = parser.parse_args()
    arguments.steps = arguments.steps or (2 if arguments.quick else 10)
    arguments.rows = arguments.rows or (16 if arguments.quick else 64)
    arguments.output = arguments.output or (QUICK_RESULTS if arguments.quick else RESULTS)
    arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.rows % (2 * GROUP):
        parser.error(f"--rows must be a multiple of {2 * GROUP}, so that two processes share whole groups.")
    if arguments.shape == "real" and arguments.device == "cpu":
        parser.error("--shape real needs a GPU; --shape tiny takes the same way on any machine.")
    return arguments


def main() -> None:
    """Measure, print, and write the figures."""
    arguments = read_arguments()
    # TRL and PEFT use names that transformers 5.23 renames.
    warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    os.environ.setdefault("DS_ACCELERATOR", arguments.device)  # or DeepSpeed warns that it has to guess
    arguments.output.mkdir(parents=True, exist_ok=True)
    machine = apart(describe_machine, arguments.device, 1)
    settings = {name: getattr(arguments, name) for name in ("shape", "steps", "rows", "quick")}
    report: dict[str, Any] = {"machine": machine, **settings, "cases": {}}
    run(arguments, report)
    title = f"{arguments.shape} models, {arguments.rows} completions a step, {machine['gpu'] or machine['cpu']}"
    draw(report["cases"], title, arguments.output / f"{arguments.shape}_{arguments.device}.png")
    print("\n".join(table(report["cases"])))
    print(f"\nWritten to {arguments.output}" + (": with --quick the figures say nothing." if arguments.quick else "."))


if __name__ == "__main__":
    main()
