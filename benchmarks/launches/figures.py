"""The table and the picture of a run's cases."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


# Okabe and Ito's colours, which tell apart without red and green.
COLOURS = {
    "generation": "#0072B2",
    "reward model": "#E69F00",
    "verifier": "#009E73",
    "loss": "#CC79A7",
    "other": "#999999",
}


def table(cases: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return one line a case: completions a second, seconds a step, the share of each part, memory beside its plan."""
    titles = ("compl./s", "s/step", *COLOURS)
    lines = [f"{'case':28}" + "".join(f"{title:>13}" for title in titles)]
    for label, case in cases.items():
        if "not_run" in case:
            lines.append(f"{label:28}  not run: {case['not_run']}")
            continue
        whole = sum(case["parts"].values())
        cells = [f"{case['completions_per_second']:.2f}", f"{statistics.median(case['seconds']):.2f}"]
        cells += [f"{case['parts'][part] / whole:.0%}" for part in COLOURS]
        lines.append(f"{label:28}" + "".join(f"{cell:>13}" for cell in cells))
    return [*lines, *memory_lines(cases)]


def memory_lines(cases: Mapping[str, dict[str, Any]], tolerance: float = 0.15) -> list[str]:
    """Hold the peaks of GPU memory against the plan's estimates, where there are both."""
    lines = []
    for label, case in cases.items():
        if "peak_bytes" in case and "planned_bytes" in case:
            ratio = case["planned_bytes"] / case["peak_bytes"]
            outcome = "met" if abs(ratio - 1) <= tolerance else "missed"
            lines.append(
                f"target: {label}: plan {case['planned_bytes'] / 1e9:.1f} GB, peak {case['peak_bytes'] / 1e9:.1f} GB "
                f"(reserved {case['reserved_bytes'] / 1e9:.1f}): ratio {ratio:.2f}, 1 within {tolerance}: {outcome}"
            )
    return lines


def draw(cases: Mapping[str, dict[str, Any]], title: str, path: Path) -> None:
    """Draw a bar for each case: a step's seconds, part by part, and completions a second beside it."""
    run = {label: case for label, case in cases.items() if "not_run" not in case}
    figure = Figure(figsize=(9, 1.2 + 0.45 * len(run)), layout="constrained")
    axes = figure.add_subplot()
    starts = [0.0] * len(run)
    for part, colour in COLOURS.items():
        seconds = [case["parts"][part] for case in run.values()]
        axes.barh(list(run), seconds, left=starts, label=part, color=colour)
        starts = [start + width for start, width in zip(starts, seconds, strict=True)]
    for row, (end, case) in enumerate(zip(starts, run.values(), strict=True)):
        axes.text(end, row, f"  {case['completions_per_second']:.1f} completions/s", va="center", fontsize=8)
    axes.set_xlim(right=1.3 * max(starts, default=1.0))
    axes.invert_yaxis()
    axes.set_xlabel("seconds a step")
    axes.set_title(title)
    axes.legend(fontsize=8, ncols=len(COLOURS), loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)
    figure.savefig(path, dpi=150)
