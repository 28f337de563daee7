"""What is made of the ways' figures: ratios, targets and the table."""

import statistics
from collections.abc import Mapping
from typing import Any

from updates.ways import SHARED, SORTED, TRL, Setting


Result = dict[str, Any]

SPEEDS = {"short": 2.5, "long prompts": 2.2, "gsm8k": 1.5}
"""What the package promises on two cores of a CPU: so many times TRL's speed."""
NEVER_SLOWER = 0.97
FP32_DIFFERENCE = 1e-5
BF16_DIFFERENCE = 2e-2
"""About five roundings of bf16, of weights and of sums over micro-batches."""


def ratio(ways: Mapping[str, Result], rival: str) -> Result | None:
    """Return how many times a rival's speed shared prompts have: median, least and most over the turns."""
    theirs, mine = (ways.get(way, {}).get("seconds") for way in (rival, SHARED))
    if not theirs or not mine:
        return None
    turns = [their / my for their, my in zip(theirs, mine, strict=True)]
    return {"median": statistics.median(turns), "least": min(turns), "most": max(turns)}


def with_ratios(case: Result) -> Result:
    """Add medians of the seconds, and ratios against both rivals."""
    for way in case["ways"].values():
        if "seconds" in way:
            way["median_seconds"] = statistics.median(way["seconds"])
    return case | {"ratios": {rival: ratio(case["ways"], rival) for rival in (TRL, SORTED)}}


def targets_of(name: str, case: Result, setting: Setting) -> list[Result]:
    """Hold a case's figures against what the package promises."""
    ways = case["ways"]
    least = SPEEDS.get(name, NEVER_SLOWER) if setting.device == "cpu" else NEVER_SLOWER
    speed = case["ratios"][TRL]
    ours, theirs = (ways.get(way, {}) for way in (SHARED, TRL))
    bound = BF16_DIFFERENCE if setting.bf16 else FP32_DIFFERENCE
    return [
        target("times TRL's speed", speed and speed["median"], least, at_least=True),
        target("peak memory, bytes", ours.get("peak_bytes"), theirs.get("peak_bytes")),
        target("gradient's difference from TRL's", ours.get("gradient_difference"), bound),
    ]


def target(claim: str, value: float | None, bound: float | None, at_least: bool = False) -> Result:
    """Hold a figure against its bound."""
    outcome = "not measured"
    if value is not None and bound is not None:
        outcome = "met" if (value >= bound if at_least else value <= bound) else "missed"
    return {"claim": claim, "value": value, "bound": bound, "at_least": at_least, "outcome": outcome}


HEADER = (
    "case",
    "TRL, s",
    "sorted, s",
    "shared, s",
    "x TRL",
    "x sorted",
    "tokens",
    "peak, MB",
    "extra, MB",
    "gradient",
)


def table(cases: Mapping[str, Result]) -> list[str]:
    """Return a Markdown table, a line a case; tokens and memory are TRL's, sorted and shared."""
    rows = [HEADER, *(line(name, case) for name, case in cases.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def line(name: str, case: Result) -> tuple[str, ...]:
    """Return the cells of a case."""
    ways = [case["ways"].get(way, {}) for way in (TRL, SORTED, SHARED)]
    return (
        name,
        *(cell(way.get("median_seconds"), ".2f") for way in ways),
        *(spread(case["ratios"][rival]) for rival in (TRL, SORTED)),
        " / ".join(cell(way.get("tokens"), ",d") for way in ways),
        *(
            " / ".join(cell(way.get(key) and way[key] / 1e6, ",.0f") for way in ways)
            for key in ("peak_bytes", "extra_bytes")
        ),
        cell(ways[2].get("gradient_difference"), ".1e"),
    )


def spread(figure: Result | None) -> str:
    """Write a ratio and its spread over the turns."""
    return "-" if figure is None else "{median:.2f} ({least:.2f}-{most:.2f})".format(**figure)


def cell(value: float | None, form: str) -> str:
    """Write a figure, a dash where there is none."""
    return "-" if value is None else format(value, form)


def target_lines(cases: Mapping[str, Result]) -> list[str]:
    """Return one line a target, as benchmarks here write them."""
    return [
        "target: {}: {claim}: {} ({} {}): {outcome}".format(
            name,
            cell(entry["value"], ".3g"),
            ">=" if entry["at_least"] else "<=",
            cell(entry["bound"], ".3g"),
            **entry,
        )
        for name, case in cases.items()
        for entry in case["targets"]
    ]
