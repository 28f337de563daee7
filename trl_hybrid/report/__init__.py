"""What a run shows: in the terminal while it goes on, as a picture of its curves, and as one page to look into."""

from trl_hybrid.report.curves import alarm_step, draw_curves
from trl_hybrid.report.page import write_report
from trl_hybrid.report.ranking import ranking_table, reward_model_line
from trl_hybrid.report.terminal import accuracy_table, cold_start_line, sample_completions, step_line


__all__ = [
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
