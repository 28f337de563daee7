"""One page to look into a run: self-contained, without network, from whatever the run has left so far."""

import base64
import hashlib
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trl_hybrid.report.charts import MANY, area_chart, histogram, line_chart, smoothing
from trl_hybrid.report.curves import alarm_step, curve
from trl_hybrid.report.headline import PARTS, headline, seconds_by_part, subtitle, time_rows
from trl_hybrid.report.panels import Panel, accuracy_panel, named_panels
from trl_hybrid.report.rows import page_rows, verdicts
from trl_hybrid.report.run import ReportedRun, read_run
from trl_hybrid.report.terminal import percent
from trl_hybrid.runs.folder import write_text


MAX_COMPLETIONS = 20_000


def write_report(folder: Path, output: Path | None = None, max_completions: int = MAX_COMPLETIONS) -> Path:
    """Write a run's page.

    Args:
        folder: The run's folder; the run may go on, or have been killed.
        output: The file to write; `report.html` in the run's folder without it.
        max_completions: Of more than so many completions those of every n-th table are shown.

    Raises:
        InputError: There is no run in `folder`.
    """
    page = render(read_run(folder, max_completions))
    output = output or folder / "report.html"
    write_text(output, page)
    return output


def render(run: ReportedRun) -> str:
    """Make the page's HTML."""
    loader = PackageLoader("trl_hybrid.report", "template")
    template = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html.jinja")
    script, style = (Path(__file__).with_name("template") / name for name in ("page.js", "page.css"))
    script_text = script.read_text(encoding="utf-8")
    return template.render(
        run=run,
        subtitle=subtitle(run.record),
        figures=headline(run),
        curves=curves(run.history),
        smoothed=_smoothed(run.history),
        scores=score_histogram(run.completions),
        times=step_times(run.history),
        rows=as_json(page_rows(run.completions)),
        shown=len(run.completions),
        sections={"versions": run.record.versions, **run.record.settings},
        style=Markup(style.read_text(encoding="utf-8")),
        script=Markup(script_text),
        script_hash=base64.b64encode(hashlib.sha256(script_text.encode()).digest()).decode(),
    )


def as_json(value: Any) -> Markup:
    r"""Write JSON for a script element: nothing that a model wrote can end the element.

    >>> as_json({"completion": "</script>"})
    Markup('{"completion":"\\u003c/script>"}')
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def curves(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Draw each panel of which something was logged: its title, note, chart and legend."""
    alarm = alarm_step(history)
    panels = accuracy_panel(history) + named_panels(history)
    return [drawn for panel in panels if (drawn := _draw(panel, history, alarm))]


def _draw(panel: Panel, history: list[dict[str, Any]], alarm: int | None) -> dict[str, Any] | None:
    lines = [(number, curve(history, key), label) for number, (key, label) in enumerate(panel.lines)]
    lines = [line for line in lines if line[1]]
    if not lines:
        return None
    chart = line_chart([(number, points) for number, points, _ in lines], alarm, panel.from_zero)
    legend = [(number, label) for number, _, label in lines] if len(panel.lines) > 1 else []
    return {"title": panel.title, "note": panel.note, "chart": chart, "legend": legend, "alarm": alarm is not None}


def _smoothed(history: list[dict[str, Any]]) -> int | None:
    points = len(curve(history, "hybrid/pass_rate"))
    return smoothing(points) if points >= MANY else None


def score_histogram(table: pd.DataFrame) -> dict[str, Any] | None:
    """Draw the reward model's scores by verdict; `None` where there are none."""
    if "score" not in table:
        return None
    verdict = verdicts(table)
    groups = []
    for number, name in enumerate(("right", "wrong", "not judged")):
        values = [score for score in table["score"][verdict == name] if math.isfinite(score)]
        if values:
            groups.append((number, values, name))
    if not groups:
        return None
    chart = histogram([(number, values) for number, values, _ in groups])
    legend = [
        (number, f"{name}: {len(values):,}, mean {sum(values) / len(values):.2f}") for number, values, name in groups
    ]
    return {"chart": chart, "legend": legend}


def step_times(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Draw where the steps' time went; `None` where it was not logged."""
    rows, seconds = time_rows(history), seconds_by_part(history)
    if not rows:
        return None
    parts = [[row[f"time/{part}"] for row in rows] for part in PARTS]
    lines = [
        (number, PARTS[part], f"{statistics.median(values):.2f} s", percent(seconds[part] / sum(seconds.values())))
        for number, (part, values) in enumerate(zip(PARTS, parts, strict=True))
    ]
    return {"chart": area_chart([row["step"] for row in rows], parts) if len(rows) > 1 else None, "rows": lines}
