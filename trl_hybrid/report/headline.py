"""The figures that a run is first asked for, as text."""

from typing import Any

from trl_hybrid.report.curves import alarm_step, curve
from trl_hybrid.report.run import ReportedRun
from trl_hybrid.report.terminal import percent
from trl_hybrid.runs.record import RunRecord


PARTS = {"generation": "writing completions", "judging": "judging", "update": "updating the policy"}


def subtitle(record: RunRecord) -> str:
    """Say what was trained, on what, and who judged."""
    if not (record.base_model and record.data):
        return "GRPO with the hybrid reward"
    learned = f"{record.base_model} on {', '.join(record.data)}"
    if not record.reward_model:  # a cold start's
        return learned
    return f"{learned}, judged by the verifier and {record.reward_model}"


def headline(run: ReportedRun) -> list[tuple[str, str]]:
    """Name the figures that a run is first asked for, each with its value as text."""
    until = "" if run.finished else f", until step {run.record.steps}"
    figures = [
        (f"Held-out accuracy, {name.replace('_', ' ')}{until}", change(before, after))
        for name, (before, after) in run.record.accuracy.items()
    ]
    passed = [value for _, value in curve(run.history, "hybrid/pass_rate")]
    if passed:
        tenth = max(1, len(passed) // 10)
        first, last = (sum(part) / len(part) for part in (passed[:tenth], passed[-tenth:]))
        figures.append(("Pass rate in training, first → last tenth", change(first, last)))
    planned = run.record.asked.get("max_steps", -1)
    of = f" of {planned}" if planned > run.step else ""
    figures.append(("Steps" if run.finished else "Steps, unfinished", f"{run.step}{of}"))
    if seconds := sum(seconds_by_part(run.history).values()):
        figures.append(("Time in steps", duration(seconds)))
    if curve(run.history, "hybrid/alarm"):
        alarm = alarm_step(run.history)
        figures.append(("Alarm for reward hacking", "silent" if alarm is None else f"since step {alarm}"))
    return figures


def change(before: float | None, after: float | None) -> str:
    """Write two shares in percent; `None` is unknown.

    >>> change(0.4, 0.625), change(None, 0.5)
    ('40.0 → 62.5 %', 'unknown → 50.0 %')
    """
    return f"{percent(before).removesuffix(' %')} → {percent(after)}"


def duration(seconds: float) -> str:
    """Say how long something took.

    >>> duration(42.3), duration(754), duration(7260)
    ('42 s', '12 min 34 s', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def time_rows(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that say where the steps' time went."""
    return [row for row in history if all(row.get(f"time/{part}") is not None for part in PARTS)]


def seconds_by_part(history: list[dict[str, Any]]) -> dict[str, float]:
    """Add up the seconds of each part; a row is the mean of the steps since the row before.

    >>> row = {"time/generation": 2.0, "time/judging": 1.0, "time/update": 3.0}
    >>> seconds_by_part([{"step": 5, **row}, {"step": 6, "eval_loss": 0.1}, {"step": 10, **row}])
    {'generation': 20.0, 'judging': 10.0, 'update': 30.0}
    """
    rows = time_rows(history)
    counts = [row["step"] - before for row, before in zip(rows, [0, *(row["step"] for row in rows)], strict=False)]
    return {part: sum(row[f"time/{part}"] * n for row, n in zip(rows, counts, strict=True)) for part in PARTS}
