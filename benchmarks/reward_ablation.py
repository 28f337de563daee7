"""Claim: where right answers are rare, the hybrid reward teaches more in equal steps than the verifier alone.

Where they are not, it is within two points of the best reward.

Trains the embedded policy once for each regime, arm and seed of `reward_ablation.yaml`, where every number and its
reason stand; they were fixed before any two arms were compared. Arms of one seed start from the same weights, see the
same questions in the same order and sample the same first answers: their differences are paired. A run is a process of
its own with one thread, and its result one JSON file. What is there already is not trained again, so an interrupted
benchmark goes on where it was; a result made with other settings is refused.

Another plan is named by `--plan`: `smollm2_study.yaml` compares on a pretrained model, with reward models that were
learned; `--larger` runs it at the size that its section says, on a GPU.

The regime `rivals` compares what other papers make of the same verdicts and scores, and the hybrid reward with scores
that say nothing. Each arm trains there with its own learning rate, chosen by runs on other seeds, the tuning regimes.

From the results come `report.md`, `learning_curves.png`, `reward_hacking.png` and `hybrid_and_verifier.png`.

Examples:
  python benchmarks/reward_ablation.py --workers 2                                      everything that is missing
  python benchmarks/reward_ablation.py --regime sparse --arms verifier hybrid --seeds 0 1
  python benchmarks/reward_ablation.py --regime tuning_0.0004 tuning_0.0008 tuning_0.0016 rivals
  python benchmarks/reward_ablation.py --report                                         tables and pictures only
  python benchmarks/reward_ablation.py --quick                                          the script works: a minute
  python benchmarks/reward_ablation.py --plan benchmarks/smollm2_study.yaml --workers 2
  timeout 600 python benchmarks/reward_ablation.py --plan benchmarks/smollm2_study.yaml --larger      on a GPU, goes on
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ablation.figures import Result
from ablation.plan import PLAN, Plan, Run, choose_learning_rates, load_plan, missing_runs, settings_of
from ablation.report import report
from tqdm import tqdm

from trl_hybrid.runs.folder import package_versions, write_json


HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
QUICK_RESULTS = ROOT / "runs"


def train(settings: dict[str, Any], folder: Path) -> Result:
    """Train one arm in this process.

    Args:
        settings: See `settings_of`.
        folder: The trainer's, for what is of no use afterwards.

    Returns:
        `accuracy`, `curves` and `seconds`: `wall` and `cpu` of everything, wall time of the `steps`, and of the
        `scoring` within them.
    """
    # Slow to import, and the process that starts the runs has no need of them.
    import torch
    from ablation.scorers import Timed
    from ablation.trainers import trainer_for
    from peft import LoraConfig
    from transformers import ProgressCallback

    from trl_hybrid import HybridGRPOConfig, MathVerifier
    from trl_hybrid.data import load_tasks, load_test_tasks
    from trl_hybrid.report import StepLines
    from trl_hybrid.training.held_out_accuracy import HeldOutAccuracy

    started, cpu_started = time.perf_counter(), time.process_time()
    if settings["training"]["use_cpu"]:
        torch.set_num_threads(1)
    dataset = dataset_of(settings)
    with MathVerifier(num_workers=1) as verifier:
        reward_model = Timed(scorer_of(settings))
        trainer = trainer_for(
            settings.get("rival"),
            settings["policy"],
            args=HybridGRPOConfig(str(folder), **settings["training"]),
            verifier=verifier,
            reward_model=reward_model,
            train_dataset=load_tasks(**dataset),
            peft_config=LoraConfig(**settings["lora"]),
        )
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(StepLines())
        test_tasks = load_test_tasks(**dataset, max_rows=settings["test_rows"])
        held_out = HeldOutAccuracy(trainer, test_tasks, verifier, folder)
        trainer.add_callback(held_out)
        trainer.train()
    return {
        "accuracy": held_out.figures(),
        "curves": curves(trainer.state.log_history),
        "seconds": {
            "wall": round(time.perf_counter() - started, 1),
            "cpu": round(time.process_time() - cpu_started, 1),
            "steps": round(step_seconds(trainer.state.log_history), 1),
            "scoring": round(reward_model.seconds, 2),
        },
    }


def dataset_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Say which problems, in the arguments of `load_tasks`: in the plan they are these, or a name alone."""
    dataset = settings["dataset"]
    return dataset if isinstance(dataset, dict) else {"name": dataset}


def scorer_of(settings: dict[str, Any]) -> Any:
    """Load the arm's reward model, or what stands in for it."""
    from ablation.scorers import FondScores, RandomScores, ShuffledScores

    from trl_hybrid import RewardModel

    training, kind = settings["training"], settings.get("scores")
    if kind == "random":
        return RandomScores(training["seed"])
    prompt = settings["reward_model_system_prompt"]
    device = "cpu" if training["use_cpu"] else None
    reward_model = RewardModel(settings["reward_model"], system_prompt=prompt, device=device)
    if kind == "shuffled":
        return ShuffledScores(reward_model, training["num_generations"], training["seed"])
    if kind == "fond":
        return FondScores(reward_model, **settings["fond_of"])
    return reward_model


def step_seconds(history: Sequence[dict[str, Any]]) -> float:
    """Add up the wall time of the steps in the trainer's log history; measuring accuracy lies between them."""
    parts = ("time/generation", "time/judging", "time/update")
    return sum(float(row[part]) for row in history for part in parts if part in row)


def curves(history: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Pick one list a metric, one number a step, out of the trainer's log history."""
    keys = {
        "pass_rate": "rewards/math_verifier/mean",
        "score": "rewards/reward_model/mean",
        "all_wrong_groups": "hybrid/all_wrong_groups",
        "auc": "hybrid/auc",
        "entropy": "entropy",
        "length": "completions/mean_length",
        "alarm": "hybrid/alarm",
        "wrong_score": "hybrid/score_wrong_mean",
        "wrong_deviation": "hybrid/score_wrong_std",
    }
    steps = [row for row in history if keys["pass_rate"] in row]
    return {name: [_rounded(row.get(key)) for row in steps] for name, key in keys.items()}


def _rounded(value: Any) -> float | None:
    """TRL logs NaN as None, and some metrics as text."""
    number = None if value is None else float(value)
    return None if number is None or number != number else round(number, 5)


def train_and_keep(plan: Plan, run: Run, output: Path) -> None:
    """Train one arm in this process and write its result."""
    os.chdir(ROOT)  # the plan's paths are relative to it
    choose_learning_rates(plan, output)
    settings = settings_of(plan, run)
    with tempfile.TemporaryDirectory() as folder:
        result = train(settings, Path(folder))
    identity = {"regime": run.regime, "arm": run.arm, "seed": run.seed}
    write_json(run.file(output), {**identity, **result, "settings": settings, "versions": package_versions()})


def run_all(plan: Plan, runs: Sequence[Run], output: Path, size: str | None, workers: int) -> None:
    """Train in processes of their own, `workers` at a time.

    Raises:
        SystemExit: One of them failed; the others ran on.
    """
    failed = []
    with ThreadPoolExecutor(workers) as threads:
        futures = {threads.submit(run_one, plan, run, output, size): run for run in runs}
        for future in (bar := tqdm(as_completed(futures), total=len(runs), desc="Runs", unit="run")):
            run, (code, text) = futures[future], future.result()
            bar.set_postfix_str(f"{run.regime} {run.arm} {run.seed}")
            if code:
                failed.append(run)
                bar.write(f"{run} ended with code {code}:\n" + "\n".join(text.splitlines()[-15:]))
    if failed:
        raise SystemExit(f"{len(failed)} of {len(runs)} runs failed. The others are kept; start again for the rest.")


def run_one(plan: Plan, run: Run, output: Path, size: str | None) -> tuple[int, str]:
    """Train one arm in a process; return its exit code and what it wrote."""
    command = [sys.executable, str(Path(__file__).resolve()), "--plan", str(plan["file"]), "--output", str(output)]
    command += ["--one", run.regime, run.arm, str(run.seed), *([f"--{size}"] if size else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {} if size == "larger" else {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def parse() -> tuple[argparse.Namespace, Plan]:
    """Read the command line, and the plan that it names."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--plan", type=Path, default=PLAN, help="what is trained and compared (default: %(default)s)")
    size = first.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", dest="size", action="store_const", const="quick", help="one seed, few steps, two arms"
    )
    size.add_argument("--larger", dest="size", action="store_const", const="larger", help="as the plan says, on a GPU")
    known = first.parse_known_args()[0]
    plan = load_plan(known.plan.resolve(), known.size)
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind, parents=[first])
    parser.add_argument("--regime", nargs="+", choices=plan["regimes"], help="default: all, in the plan's order")
    parser.add_argument("--arms", nargs="+", choices=plan["arms"], help="default: those of the regime in the plan")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: those of the regime in the plan")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, one core each (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder of the results (default: results/PLAN beside this script)")
    parser.add_argument("--report", action="store_true", help="train nothing; tables and pictures from what there is")
    parser.add_argument("--one", nargs=3, metavar=("REGIME", "ARM", "SEED"), help="train this run in this process")
    return parser.parse_args(), plan


def main() -> None:
    """Train what is missing, regime by regime, and report."""
    arguments, plan = parse()
    name = plan["file"].stem + (f"_{arguments.size}" if arguments.size else "")
    default = (QUICK_RESULTS if arguments.size == "quick" else RESULTS) / name
    output = (arguments.output or default).resolve()
    output.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        regime, arm, seed = arguments.one
        train_and_keep(plan, Run(regime, arm, int(seed)), output)
        return
    for regime in [] if arguments.report else arguments.regime or plan["regimes"]:
        choose_learning_rates(plan, output)  # by what the regimes before have found
        runs = missing_runs(plan, regime, output, arguments.arms, arguments.seeds)
        run_all(plan, runs, output, arguments.size, arguments.workers)
    choose_learning_rates(plan, output)
    report(plan, output)


if __name__ == "__main__":
    main()
