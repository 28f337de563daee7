"""The learning curves of a run, and one picture of them."""

from pathlib import Path
from typing import Any

from trl_hybrid.report.panels import PANELS
from trl_hybrid.report.terminal import percent


PICTURED = (
    "Pass rate", "Rewards", "Reward model score", "Kinds of groups", "Does the reward model agree?",
    "Difficulty weight", "Completion length", "Entropy",
)  # fmt: skip
"""The page's panels that the picture has too."""


def draw_curves(history: list[dict[str, Any]], accuracy: dict[str, dict[str, float | None]], path: Path) -> None:
    """Draw the learning curves of a run."""
    from matplotlib.figure import Figure  # slow to import, used once

    figure = Figure(figsize=(15, 6.5), layout="constrained")
    alarm = alarm_step(history)
    panels = [panel for panel in PANELS if panel.title in PICTURED]
    for axes, panel in zip(figure.subplots(2, 4).flat, panels, strict=True):
        for key, label in panel.lines:
            points = curve(history, key)
            if points:
                axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 30 else None)
        if alarm is not None:
            axes.axvline(alarm, color="tab:red", linestyle="--", label="alarm")
        axes.set(title=panel.title, xlabel="step")
        axes.grid(alpha=0.3)
        if len(panel.lines) > 1 and axes.lines:
            axes.legend()
    text = "   ".join(
        f"{name.replace('_', ' ')}: {percent(value['before'])} → {percent(value['after'])}"
        for name, value in accuracy.items()
    )
    figure.suptitle(f"Held-out accuracy   {text}" if text else "Training")
    figure.savefig(path, dpi=110)


def curve(history: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """Return the steps and values of a figure, where it was logged and could be measured.

    >>> curve([{"step": 1, "kl": 0.5}, {"step": 2}, {"step": 3, "kl": None}], "kl")
    [(1, 0.5)]
    """
    return [(row["step"], row[key]) for row in history if row.get(key) is not None]


def alarm_step(history: list[dict[str, Any]]) -> int | None:
    """Return the first step at which the alarm for reward hacking had fired, None if it never did.

    >>> alarm_step([{"step": 1, "hybrid/alarm": 0.0}, {"step": 2, "hybrid/alarm": 1.0}])
    2
    """
    return next((row["step"] for row in history if row.get("hybrid/alarm")), None)
