"""What a run shows: in the terminal while it goes on, as a picture of its curves, and as one page to look into.

Of these names only `StepLines`, a callback of the trainer, needs torch, which loads with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trl_hybrid.report.curves import alarm_step, draw_curves
from trl_hybrid.report.page import write_report
from trl_hybrid.report.ranking import ranking_table, reward_model_line
from trl_hybrid.report.terminal import accuracy_table, cold_start_line, sample_completions, step_line


if TYPE_CHECKING:
    from trl_hybrid.report.step_lines import StepLines

__all__ = [
    "StepLines",
    "accuracy_table",
    "alarm_step",
    "cold_start_line",
    "draw_curves",
    "ranking_table",
    "reward_model_line",
    "sample_completions",
    "step_line",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name != "StepLines":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("trl_hybrid.report.step_lines").StepLines
