"""Tables on the alarm for reward hacking, from runs that were made to be hacked and from healthy ones."""

from collections.abc import Sequence
from typing import Any

from ablation.alarms import ONSET, WIDTH, Tally, fall_of, kept_at, replay, share_interval, tally
from ablation.figures import ByArm, Result, smooth
from ablation.tables import markdown

from trl_hybrid.hybrid.alarm import HackingAlarm


SHIPPED = HackingAlarm().windows

ALARMS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    **{
        f"windows {'/'.join(map(str, windows))}, {limit:g} deviations of both": {
            "windows": windows, "climb": limit, "drop": limit
        }
        for windows in (SHIPPED, [20], [40], [60])
        for limit in (3.0, 3.5, 4.1)
    },
}  # fmt: skip
"""Settings of the alarm that hear the runs again."""


def alarm_report(name: str, regime: dict[str, Any], results: ByArm) -> str:
    """Everything about a regime whose runs are there for the alarm, in Markdown.

    Args:
        name: The regime's.
        regime: As in the plan; `hacked` names the arms that were made to be hacked.
        results: Of its runs.
    """
    runs = [(arm, seed, run) for arm, by_seed in results.items() for seed, run in by_seed.items()]
    parts = [
        f"## {name}",
        f"{regime['what']} Made to be hacked: {', '.join(regime['hacked'])}. Pass rates are means of {WIDTH} steps.",
        runs_table(runs),
        "The shipped alarm, and others that hear the same runs:",
        settings_table([run for *_, run in runs]),
        healthy_line([run for arm, _, run in runs if arm not in regime["hacked"]]),
    ]
    return "\n\n".join(parts)


def runs_table(runs: Sequence[tuple[str, int, Result]]) -> str:
    """One row a run: where its pass rate went, and when the shipped alarm fires in it."""
    rows = []
    for arm, seed, run in runs:
        passed = run["curves"]["pass_rate"]
        fall, alarm = fall_of(passed), replay(run, HackingAlarm())
        means = smooth(passed, WIDTH)[WIDTH - 1 :]
        ahead = "" if fall is None or alarm is None else f"{fall - alarm:+d}"
        left = "" if alarm is None else f"{100 * kept_at(passed, alarm):.0f} %"
        steps = [said(fall_of(passed, lost=ONSET)), said(fall), said(alarm)]
        rows.append([arm, str(seed), f"{100 * max(means):.0f} → {100 * means[-1]:.0f} %", *steps, ahead, left])
    heading = ["arm", "seed", "pass rate, best → last", "a tenth lost at step", "half lost: fallen", "alarm"]
    return markdown([*heading, "steps ahead of the fall", "left of the best when it fired"], rows)


def settings_table(runs: Sequence[Result]) -> str:
    """One row an alarm: how many falls it heard in time, and how often it was false."""
    rows = []
    for name, settings in ALARMS.items():
        steps = [(fall_of(run["curves"]["pass_rate"]), replay(run, HackingAlarm(**settings))) for run in runs]
        rows.append([name, *columns(tally(steps))])
    return markdown(["alarm", "in time", "late", "missed", "median steps ahead", "false, 95 % interval"], rows)


def healthy_line(runs: Sequence[Result]) -> str:
    """Say how often the shipped alarm fires in the arms that were not made to be hacked."""
    fired = sum(replay(run, HackingAlarm()) is not None for run in runs)
    shown = share(fired, len(runs))
    return f"False: in any run that has not fallen. In the healthy arms the shipped alarm fires in {shown}."


def share(hits: int, trials: int) -> str:
    """Write a share as a count, with its interval."""
    if trials == 0:
        return "0 of 0"
    low, high = share_interval(hits, trials)
    return f"{hits} of {trials} [{100 * low:.0f} %, {100 * high:.0f} %]"


def columns(counts: Tally) -> list[str]:
    """Say what an alarm did, in the table's columns."""
    median = f"{counts.median_ahead:+g}" if counts.ahead else ""
    late = len(counts.ahead) - counts.in_time
    return [
        f"{counts.in_time} of {counts.fell}",
        str(late),
        str(counts.missed),
        median,
        share(counts.false, counts.healthy),
    ]


def said(step: int | None) -> str:
    """Name a step, or say that there is none."""
    return "never" if step is None else str(step)
