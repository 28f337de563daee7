"""The callback that shows a line a step, in a module of its own: `trl-hybrid report` does without what it imports."""

from collections.abc import Callable
from typing import Any

from transformers import ProgressCallback

from trl_hybrid.report.terminal import step_line


class StepLines(ProgressCallback):
    """The progress bar of a training run, with one readable line each time metrics are logged.

    Args:
        line: Puts a step and its metrics on a line.
        needs: The metric without which there is nothing to show.
    """

    def __init__(
        self, line: Callable[[int, dict[str, Any]], str] = step_line, needs: str = "hybrid/pass_rate"
    ) -> None:
        super().__init__()
        self.line, self.needs = line, needs

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write the line; everything else is in the trackers and in `trainer_state.json`."""
        if self.training_bar is not None and logs and self.needs in logs:
            self.training_bar.write(self.line(state.global_step, logs))
