"""Which runs there are, with what settings, and which of them have a result."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ablation.figures import ByArm, Result, mean_of

from trl_hybrid.runs.folder import read_json


PLAN = Path(__file__).resolve().parent.parent / "reward_ablation.yaml"

BEST_RIVAL = "best_rival"
"""Stands in a regime's arms for the rival that did best in the regime of `best_rival.regime`."""

KINDS = ("rival", "scores", "reward_model", "fond_of")
"""Keys of an arm that say what it is made of; a reward model of its own takes the place of the plan's."""

OF_THE_BENCHMARK = (*KINDS, "tuned_as")
"""Keys of an arm that are no settings of the trainer."""

Plan = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One training run: a regime, an arm and a seed."""

    regime: str
    arm: str
    seed: int

    def file(self, folder: Path) -> Path:
        """Where the run's result lies."""
        return folder / f"{self.regime}-{self.arm}-{self.seed}.json"


def load_plan(path: Path = PLAN, size: str | None = None) -> Plan:
    """Read a plan, and keep its `file`.

    Args:
        path: Where it is.
        size: A section of the plan, `quick` or `larger`, that names the `regimes` to run and changes what else it
            says: each regime's `arms`, `seeds`, `dataset`, `what` and `training`, and what is `shared`.

    Raises:
        SystemExit: There is no such section.
    """
    plan = {**yaml.safe_load(path.read_text(encoding="utf-8")), "file": path}
    if size is None:
        return plan
    if size not in plan:
        raise SystemExit(f"{path.name} has no section {size!r}.")
    changes = plan[size]
    plan["regimes"] = {name: plan["regimes"][name] for name in changes["regimes"]}
    for regime in plan["regimes"].values():
        regime |= {key: changes[key] for key in ("arms", "seeds", "dataset", "what") if key in changes}
        regime["training"] = {**regime["training"], **changes["training"]}
    plan["shared"] |= changes["shared"]
    return plan


def settings_of(plan: Plan, run: Run) -> dict[str, Any]:
    """Put together everything that decides what comes out of a run.

    Raises:
        SystemExit: The regime's learning rates are chosen by tuning runs, and those of this arm are not complete.
    """
    regime, arm = plan["regimes"][run.regime], plan["arms"][run.arm]
    training = {**plan["training"], **regime["training"], "seed": run.seed}
    training |= {key: value for key, value in arm.items() if key not in OF_THE_BENCHMARK}
    if "tuned_by" in regime:
        tuned = arm.get("tuned_as", run.arm)
        if tuned not in regime.get("learning_rates", {}):
            wanted = " ".join(regime["tuned_by"])
            raise SystemExit(f"No learning rate is chosen for {tuned!r} yet. Run --regime {wanted} first.")
        training["learning_rate"] = regime["learning_rates"][tuned]
    kind = {key: arm[key] for key in KINDS if key in arm}
    asked = {key: regime[key] for key in ("dataset", "test_rows") if key in regime}
    return {**plan["shared"], **asked, **kind, "training": training}


def choose_learning_rates(plan: Plan, output: Path) -> None:
    """Choose each arm's learning rate in the regimes that are `tuned_by` others, and set their `learning_rates`.

    The rule: of the tuning regimes' learning rates the one with the highest mean of the primary measure over the
    tuning seeds, and the smallest of equal ones. An arm whose tuning runs are not complete gets none.
    """
    for regime in plan["regimes"].values():
        if "tuned_by" not in regime:
            continue
        means = tuning_means(plan, regime["tuned_by"], output)
        complete = {arm: by_rate for arm, by_rate in means.items() if len(by_rate) == len(regime["tuned_by"])}
        regime["learning_rates"] = {
            arm: max(sorted(by_rate), key=lambda rate, by_rate=by_rate: by_rate[rate])
            for arm, by_rate in complete.items()
        }


def tuning_means(plan: Plan, regimes: Sequence[str], output: Path) -> dict[str, dict[float, float]]:
    """Average the primary measure over the seeds of tuning regimes, `{arm: {learning rate: mean}}`.

    An arm that lacks a seed in a regime has no mean there.
    """
    means: dict[str, dict[float, float]] = {}
    for name in regimes:
        regime, results = plan["regimes"][name], kept_results(plan, name, output)
        for arm, by_seed in results.items():
            if set(regime["seeds"]) <= set(by_seed):
                runs = [by_seed[seed] for seed in regime["seeds"]]
                means.setdefault(arm, {})[regime["training"]["learning_rate"]] = mean_of(runs, plan["primary"])
    return means


def kept_result(plan: Plan, run: Run, output: Path) -> Result | None:
    """Read a run's result.

    Returns:
        `None` where there is none.

    Raises:
        SystemExit: It was made with settings that are not the plan's, or what they are is not decided yet.
    """
    settings, result = settings_of(plan, run), read_json(run.file(output))
    if result and result["settings"] != settings:
        raise SystemExit(
            f"{run.file(output)} was made with other settings than {plan['file'].name} has now: runs that differ in "
            "more than the arm cannot be compared. Remove it, or give --output another folder."
        )
    return result or None


def missing_runs(
    plan: Plan, regime: str, output: Path, arms: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> list[Run]:
    """List a regime's runs that have no result, seed by seed, so that what there is can be compared early."""
    arms = arms or resolve_arms(plan, regime, output)
    wanted = [Run(regime, arm, seed) for seed in seeds or plan["regimes"][regime]["seeds"] for arm in arms]
    return [run for run in wanted if kept_result(plan, run, output) is None]


def resolve_arms(plan: Plan, regime: str, output: Path) -> list[str]:
    """Name a regime's arms, with the best rival by its name.

    Raises:
        SystemExit: The runs that decide which rival is the best are not complete.
    """
    arms = plan["regimes"][regime]["arms"]
    if BEST_RIVAL not in arms:
        return list(arms)
    rule = plan["best_rival"]
    missing = missing_runs(plan, rule["regime"], output, rule["among"])
    if missing:
        raise SystemExit(
            f"The regime {regime!r} wants the best rival of the regime {rule['regime']!r}, where {len(missing)} runs "
            f"are missing. Run --regime {rule['regime']} first, or name the arms by --arms."
        )
    results = kept_results(plan, rule["regime"], output)
    best = max(rule["among"], key=lambda arm: mean_of(results[arm].values(), plan["primary"]))
    return [best if arm == BEST_RIVAL else arm for arm in arms]


def kept_results(plan: Plan, regime: str, output: Path) -> ByArm:
    """Read what there is of a regime, `{arm: {seed: result}}`, arms in the plan's order, without empty ones."""
    found: ByArm = {}
    for arm in plan["arms"]:
        runs = [Run(regime, arm, int(file.stem.rpartition("-")[2])) for file in output.glob(f"{regime}-{arm}-*.json")]
        for run in sorted(runs, key=lambda run: run.seed):
            found.setdefault(arm, {})[run.seed] = kept_result(plan, run, output) or {}
    return found
