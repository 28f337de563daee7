"""The picture of the curves, and the page's charts."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from trl_hybrid.report import draw_curves
from trl_hybrid.report.charts import area_chart, histogram, line_chart


def test_curves_are_drawn_also_from_an_unfinished_history(tmp_path):
    history = [{"step": 1, "hybrid/pass_rate": 0.2, "entropy": None}, {"step": 2, "hybrid/pass_rate": 0.4}]
    draw_curves(history, {"greedy": {"before": 0.3, "after": 0.7}}, tmp_path / "curves.png")
    draw_curves([], {}, tmp_path / "empty.png")
    assert (tmp_path / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "chart",
    [
        lambda: line_chart([(0, [(1, 0.5), (2, 0.75)]), (1, [(1, 0.1)])], alarm=2, from_zero=True),
        lambda: line_chart([(0, [(step, step % 7) for step in range(200)])]),
        lambda: area_chart([1, 2], [[1.0, 2.0], [0.5, 0.5]]),
        lambda: histogram([(0, [1.0, 2.0]), (1, [-1.0])]),
        lambda: histogram([(0, [1.0, 1.0])]),
    ],
    ids=["lines", "many points", "areas", "histogram", "one value"],
)
def test_charts_are_svg_in_the_pages_colours_without_anything_from_outside(chart):
    svg = str(chart())
    ElementTree.fromstring(svg)
    assert svg.startswith("<svg")
    assert "var(--plot-10)" in svg
    assert re.findall(r"#0a0b", svg) == []
    assert set(re.findall(r'https?://[^"]*', svg)) <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}
    assert set(re.findall(r'href="(.)', svg)) <= {"#"}


def test_lines_stand_where_their_values_are():
    svg = line_chart([(0, [(1, 0.0), (2, 1.0), (3, 0.5)])], from_zero=True)
    path = re.search(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: var\(--plot-10\)', svg)[1]
    (x1, y1), (x2, y2), (x3, y3) = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.01)
    assert y1 - y3 == pytest.approx(y3 - y2, abs=0.01)  # SVG counts y from the top
    assert y1 > y2
