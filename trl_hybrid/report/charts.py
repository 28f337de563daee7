"""Charts as inline SVG, in the page's own colours, so that they follow its light or dark theme."""

import io
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup


# matplotlib writes colours; the page puts its own in their place.
INK, GRID, ALARM = "#0a0b01", "#0a0b02", "#0a0b03"
SERIES = ("#0a0b10", "#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14")
COLOUR = re.compile(r"#0a0b([0-9a-f]{2})")

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.5,
}
SIZE = (4.2, 2.0)  # inches

FEW = 30  # points that are marked
MANY = 60  # points that are smoothed

Points = Sequence[tuple[float, float]]


def line_chart(lines: Sequence[tuple[int, Points]], alarm: int | None = None, from_zero: bool = False) -> Markup:
    """Draw lines over steps; where there are many points, faintly, with a running mean on top.

    A line is the number of a colour, and its points.
    """

    def draw(axes: Any) -> None:
        for colour, points in lines:
            steps, values = map(list, zip(*points, strict=True))
            if len(values) >= MANY:
                axes.plot(steps, values, color=SERIES[colour], alpha=0.3, linewidth=0.8)
                values = pd.Series(values).rolling(smoothing(len(values)), min_periods=1, center=True).mean()
            marker = "." if len(points) < FEW else None
            axes.plot(steps, values, color=SERIES[colour], marker=marker, markersize=5, clip_on=False)
        if alarm is not None:
            axes.axvline(alarm, color=ALARM, linestyle="--", linewidth=1)
        if from_zero:
            axes.set_ylim(0, 1.08 * max(value for _, points in lines for _, value in points) or 1)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return _svg(draw)


def smoothing(points: int) -> int:
    """Say over how many points the running mean goes.

    >>> smoothing(40), smoothing(1000)
    (1, 50)
    """
    return points // 20 if points >= MANY else 1


def area_chart(steps: Sequence[int], parts: Sequence[Sequence[float]]) -> Markup:
    """Draw parts of a whole over steps, one above the other, in the order of the colours."""

    def draw(axes: Any) -> None:
        axes.stackplot(steps, parts, colors=SERIES[: len(parts)], step="mid", linewidth=0)
        axes.margins(x=0)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return _svg(draw)


def histogram(groups: Sequence[tuple[int, Sequence[float]]]) -> Markup:
    """Draw how values are spread, in 40 bins that all groups share; each group's bars over those before."""
    low = min(min(values) for _, values in groups)
    high = max(max(values) for _, values in groups)

    def draw(axes: Any) -> None:
        for colour, values in groups:
            span = (low, high) if high > low else (low - 0.5, low + 0.5)
            axes.hist(values, bins=40, range=span, color=SERIES[colour], alpha=0.6)

    return _svg(draw)


def _svg(draw: Any) -> Markup:
    """Let `draw` draw on axes; what comes back needs no file and no name of its own on the page."""
    import matplotlib as mpl  # slow to import
    from matplotlib.figure import Figure

    # Ids are made from what is drawn, and the same everywhere: equal ids stand for equal shapes.
    with mpl.rc_context({**STYLE, "svg.hashsalt": "report"}):
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :])
    return Markup(COLOUR.sub(r"var(--plot-\1)", text))
