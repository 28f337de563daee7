"""The callback that writes the history, in a module of its own: `trl-hybrid report` does without what it imports."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trl_hybrid.runs.folder import write_text
from trl_hybrid.runs.history import HISTORY_FILE, history_line


class RunHistory(TrainerCallback):
    """Write each row that the trainer logs to `history.jsonl`, one line a row, as soon as it is logged.

    A run that goes on from a checkpoint starts with the rows that the checkpoint knows: what an earlier attempt logged
    after it does not belong to the run.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / HISTORY_FILE

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the rows up to where the run starts: none, or the checkpoint's."""
        if state.is_world_process_zero:
            write_text(self.path, "".join(map(history_line, state.log_history)))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Append the newest row."""
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(history_line(state.log_history[-1]))
