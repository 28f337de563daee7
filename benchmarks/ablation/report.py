"""Tables in Markdown and pictures from the results that there are."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ablation.alarm_report import alarm_report
from ablation.figures import MEASURES, ByArm, Result, compare, edges, mean_curve, mean_of, smooth
from ablation.plan import Plan, kept_results, tuning_means
from ablation.tables import markdown


def report(plan: Plan, output: Path) -> None:
    """Print and write the tables, and draw the pictures, from the results that there are."""
    tuning = {name for regime in plan["regimes"].values() for name in regime.get("tuned_by", [])}
    found = {regime: kept_results(plan, regime, output) for regime in plan["regimes"] if regime not in tuning}
    found = {regime: results for regime, results in found.items() if results}
    if not found:
        raise SystemExit(f"There are no results in {output}. Start without --report to make them.")
    text = "\n\n".join(
        alarm_report(regime, plan["regimes"][regime], results)
        if "hacked" in plan["regimes"][regime]
        else regime_report(plan, regime, results) + tuning_report(plan, regime, results, output)
        for regime, results in found.items()
    )
    (output / "report.md").write_text(f"# Which reward teaches most\n\n{text}\n", encoding="utf-8")
    compared = {regime: results for regime, results in found.items() if "hacked" not in plan["regimes"][regime]}
    if compared:
        draw(compared, output / "learning_curves.png", draw_learning)
        draw(compared, output / "reward_hacking.png", draw_hacking)
        draw(compared, output / "hybrid_and_verifier.png", draw_difference)
    print(f"{text}\n\nWritten: report.md and the pictures in {output}")


def regime_report(plan: Plan, regime: str, results: ByArm) -> str:
    """Everything about one regime, in Markdown."""
    steps = {len(r["curves"]["pass_rate"]) for by_seed in results.values() for r in by_seed.values()}
    before = next(iter(next(iter(results.values())).values()))["accuracy"]
    start = ", ".join(f"{MEASURES[name]} {100 * values['before']:.1f}" for name, values in before.items())
    return "\n\n".join(
        [
            f"## {regime}",
            f"{plan['regimes'][regime]['what']} {' / '.join(map(str, sorted(steps)))} steps. Accuracy in percent on "
            f"{plan['shared']['test_rows']} held-out questions; before training: {start}.",
            arms_table(results),
            differences_table(results),
            target_line(plan, regime, results),
        ]
    )


def tuning_report(plan: Plan, regime: str, results: ByArm, output: Path) -> str:
    """Say how the learning rates were chosen and what a step takes; empty where the regime has none of its own."""
    tuned_by = plan["regimes"][regime].get("tuned_by")
    if tuned_by is None:
        return ""
    means = tuning_means(plan, tuned_by, output)
    rates = [plan["regimes"][name]["training"]["learning_rate"] for name in tuned_by]
    rows = []
    for arm, by_seed in results.items():
        tried = means[plan["arms"][arm].get("tuned_as", arm)]
        chosen = next(iter(by_seed.values()))["settings"]["training"]["learning_rate"]
        costs = [step_cost(run) for run in by_seed.values() if had_its_core(run)]
        step = f"{statistics.fmean(costs):.3f}" if costs else "not timed"
        rows.append([arm, *(f"{100 * tried[rate]:.1f}" for rate in rates), f"{chosen:g}", step])
    seeds = ", ".join(map(str, plan["regimes"][tuned_by[0]]["seeds"]))
    heading = f"Learning rates, chosen by {MEASURES[plan['primary']]} over the seeds {seeds}; seconds a step, without "
    heading += "scoring where the arm reads no score, of the runs that had a core to themselves:"
    table = markdown(["arm", *(f"at {rate:g}" for rate in rates), "chosen", "seconds a step"], rows)
    return f"\n\n{heading}\n\n{table}"


def had_its_core(run: Result) -> bool:
    """Whether a run's seconds say what it costs: its steps took no longer than all its work took on a processor."""
    return run["seconds"]["steps"] <= run["seconds"]["cpu"]


def step_cost(run: Result) -> float:
    """Seconds of wall time that one step of a run takes, without scoring where nothing reads the scores."""
    settings, seconds = run["settings"], run["seconds"]
    reads = settings.get("rival") in ("prof", "papo") or settings["training"]["reward_mode"] != "verifier"
    return (seconds["steps"] - (0.0 if reads else seconds["scoring"])) / settings["training"]["max_steps"]


def arms_table(results: ByArm) -> str:
    """One row an arm: accuracies in percent, and where the run's curves start and end, means over seeds."""
    rows = []
    for arm, by_seed in results.items():
        runs = list(by_seed.values())
        accuracies = [f"{100 * mean_of(runs, name):.1f}" for name in MEASURES]
        ends = [
            "{:{form}} → {:{form}}".format(*edges(mean_curve(runs, name)), form=form)
            for name, form in (("pass_rate", ".3f"), ("score", "+.2f"), ("auc", ".2f"))
        ]
        wrong = [share for run in runs for share in run["curves"]["all_wrong_groups"] if share is not None]
        rows.append([arm, *accuracies, *ends, f"{100 * statistics.fmean(wrong):.0f} %", str(len(runs))])
    header = ["arm", *MEASURES.values(), "pass rate, start → end", "RM score, start → end", "RM's AUC, start → end"]
    return markdown([*header, "all-wrong groups", "seeds"], rows)


def differences_table(results: ByArm) -> str:
    """One row a pair of arms: each against the verifier alone, the hybrid against each other."""
    pairs = [(arm, "verifier") for arm in results if arm != "verifier"]
    pairs += [("hybrid", arm) for arm in results if arm not in ("hybrid", "verifier")]
    rows = []
    for first, second in pairs:
        if first not in results or not set(results[first]) & set(results.get(second, {})):
            continue
        intervals = [compare(results, first, second, name) for name in MEASURES]
        rows.append([f"{first} - {second}", *map(str, intervals), str(intervals[0].pairs)])
    return markdown(["points, 95 % interval", *MEASURES.values(), "pairs"], rows)


def target_line(plan: Plan, regime: str, results: ByArm) -> str:
    """Say whether the regime's target is met."""
    name, target = plan["primary"], plan["regimes"][regime]["target"]
    if "hybrid" not in results or "verifier" not in results:
        return "Target: not decided, an arm is missing."
    if target == "above_verifier":
        interval = compare(results, "hybrid", "verifier", name)
        met = "met" if interval.low > 0 else "missed"
        return f"Target, hybrid - verifier above 0 ({MEASURES[name]}): {interval}, {interval.pairs} pairs: {met}."
    best = max(results, key=lambda arm: mean_of(results[arm].values(), name))
    gap = mean_of(results["hybrid"].values(), name) - mean_of(results[best].values(), name)
    met = "met" if gap >= -target else "missed"
    return (
        f"Target, hybrid within {100 * target:.0f} points of the best arm ({MEASURES[name]}): the best is {best}, "
        f"the gap {100 * gap:+.1f}: {met}."
    )


def draw(found: dict[str, ByArm], path: Path, panel: Callable[[Any, ByArm], None]) -> None:
    """Draw one panel a regime."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * len(found), 4.8), layout="constrained")
    for axes, (regime, results) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        panel(axes, results)
        axes.set_title(regime)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def draw_learning(axes: Any, results: ByArm) -> None:
    """Pass rate over the steps: mean over seeds, and a band from the lowest to the highest seed."""
    for arm, by_seed in results.items():
        columns = list(zip(*(smooth(run["curves"]["pass_rate"]) for run in by_seed.values()), strict=True))
        steps = range(1, len(columns) + 1)
        (line,) = axes.plot(steps, list(map(statistics.fmean, columns)), label=f"{arm} (n = {len(by_seed)})")
        axes.fill_between(steps, list(map(min, columns)), list(map(max, columns)), alpha=0.12, fc=line.get_color())
    axes.set(xlabel="step", ylabel="right training answers, mean of 5 steps", ylim=(0, None))


def draw_hacking(axes: Any, results: ByArm) -> None:
    """Pass rate over the reward model's mean score along the run: a hacked reward model moves right and not up."""
    for arm, by_seed in results.items():
        score, passed = (smooth(mean_curve(by_seed.values(), name)) for name in ("score", "pass_rate"))
        (line,) = axes.plot(score, passed, label=arm, alpha=0.8)
        axes.plot(score[-1], passed[-1], "o", color=line.get_color())
    axes.set(xlabel="mean reward model score (dot: the last step)", ylabel="right training answers", ylim=(0, None))


def draw_difference(axes: Any, results: ByArm) -> None:
    """Held-out accuracy of the two arms as bars, with the 95 % interval of their paired difference at the hybrid's."""
    arms = [arm for arm in ("verifier", "hybrid") if arm in results]
    if not arms:
        return
    means = [100 * mean_of(results[arm].values(), "mean_of_8") for arm in arms]
    seeds = [f"{arm}\n{len(results[arm])} seeds" for arm in arms]
    bars = axes.bar(seeds, means, width=0.6, color=["tab:gray", "tab:blue"][: len(arms)], label="mean over seeds")
    axes.bar_label(bars, fmt="%.1f", label_type="center", color="white", fontsize=14)
    if len(arms) == 2:
        gain = compare(results, "hybrid", "verifier", "mean_of_8")
        axes.errorbar(
            [1],
            means[1:],
            100 * (gain.high - gain.mean),
            fmt="none",
            color="black",
            capsize=6,
            label=f"hybrid - verifier: {gain}",
        )
    axes.set(ylabel="held-out accuracy, %, mean of 8 samples", ylim=(0, 1.4 * max(means)))
