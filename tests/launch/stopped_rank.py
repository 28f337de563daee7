"""Run the recipe on several processes and let one of them raise an error, or kill it, in the middle of a step.

python tests/launch/stopped_rank.py {crash,kill} PROCESS STEP RECIPE_OPTION...

The file `crashed` in the run's folder says when the error was raised.
"""

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from trl_hybrid import HybridGRPOTrainer


def stop_in_loss(how: str, step: int) -> None:
    """End this process when it computes a loss after `step` steps."""
    compute_loss = HybridGRPOTrainer.compute_loss

    def stopped(self: HybridGRPOTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            Path(self.args.output_dir, "crashed").touch()
            raise RuntimeError("one process lost its nerve")
        return compute_loss(self, *args, **kwargs)

    HybridGRPOTrainer.compute_loss = stopped


if __name__ == "__main__":
    how, process, step, *options = sys.argv[1:]
    if os.environ.get("RANK", "0") == process:
        stop_in_loss(how, int(step))
    sys.argv = ["recipes/tinyllama_grpo.py", *options]
    runpy.run_path(sys.argv[0], run_name="__main__")
