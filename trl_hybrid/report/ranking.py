"""What a reward model's training shows: a line a step, and how well it ranks held-out answers."""

from collections.abc import Mapping
from typing import Any


Figures = Mapping[str, Mapping[str, float | int | None]]
"""As of `ranking_figures` in `trl_hybrid.evaluation.ranking`."""


def reward_model_line(step: int, logs: dict[str, Any]) -> str:
    """Put what a reward model learns from pairs on one line.

    >>> reward_model_line(5, {"loss": 0.51234, "accuracy": 0.8125, "margin": 1.2})
    'step    5 | loss  0.512 | pairs in order  81% | right above wrong by 1.20'
    """
    return (
        f"step {step:4d} | loss {logs['loss']:6.3f} | pairs in order {logs['accuracy']:4.0%} | "
        f"right above wrong by {logs['margin']:.2f}"
    )


FEW = 10
"""Of fewer problems than this nothing is said."""

RANKING = {
    "auc": "AUC within problems",
    "auc_whole": "  of answers that are not cut off",
    "auc_votes": "  of the commonest answer, no model",
    "auc_brevity": "  of the shorter answer, no model",
    "right_shorter": "right above wrong, right is shorter",
    "right_same": "  as long, within 10 %",
    "right_longer": "  longer",
    "length_correlation": "correlation with length, same verdict",
    "calibration_error": "calibration error",
}
"""What the figures of a reward model are called, in the order in which they are shown."""


def ranking_rows(figures: Figures) -> list[tuple[str, str, str]]:
    """Lay out what was measured of a reward model: name, value with its interval, and on how many problems."""
    return [
        (label, _with_interval(figures[name]), str(figures[name]["problems"]))
        for name, label in RANKING.items()
        if name in figures
    ]


def _with_interval(figure: Mapping[str, float | int | None]) -> str:
    if figure["value"] is None:
        return "unknown"
    ends = "" if figure["low"] is None else f" [{figure['low']:.2f}, {figure['high']:.2f}]"
    return f"{figure['value']:.2f}{ends}"


def length_shortcut(figures: Figures) -> str | None:
    """Say how a reward model goes by length: clearly worse than chance where length speaks against the right answer.

    >>> figures = {"right_longer": {"value": 0.375, "low": 0.3, "high": 0.45, "problems": 40}}
    >>> length_shortcut(figures)
    'it puts right answers that are longer above wrong ones in 38% only: it goes by length'
    >>> length_shortcut({"right_longer": figures["right_longer"] | {"high": 0.51}})
    >>> length_shortcut({"right_longer": figures["right_longer"] | {"problems": FEW - 1}})
    """
    for side in ("shorter", "longer"):
        figure = figures.get(f"right_{side}", {})
        value, high = figure.get("value"), figure.get("high")
        if value is not None and high is not None and high < 0.5 and (figure["problems"] or 0) >= FEW:
            return f"it puts right answers that are {side} above wrong ones in {value:.0%} only: it goes by length"
    return None


def ranking_table(figures: Figures, problems: int) -> str:
    """Say how well a reward model ranks the answers to held-out problems, and whether by length.

    >>> one = {"value": 0.75, "low": 0.6, "high": 0.9, "problems": 41}
    >>> print(ranking_table({"auc": one}, 60))
    On 60 problems that training did not see:              problems
      AUC within problems                    0.75 [0.60, 0.90]     41
    """
    head = f"On {problems} problems that training did not see"
    if not figures:
        return f"{head} none has both right and wrong answers: nothing could be measured. Hold out more problems."
    lines = [f"{head + ':':54} problems"]
    lines += [f"  {label:38} {value:20} {count:>3}".rstrip() for label, value, count in ranking_rows(figures)]
    shortcut = length_shortcut(figures)
    return "\n".join([*lines, *([f"Take care: {shortcut}."] if shortcut else [])])
