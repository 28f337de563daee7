"""Run the recipe and kill it by SIGKILL at a point that no outside observer could hit: in a step, or in a save.

python tests/launch/killed.py {step,save} STEP RECIPE_OPTION...
"""

import os
import runpy
import signal
import sys

from trl_hybrid import HybridGRPOTrainer


POINTS = {"step": "compute_loss", "save": "_save_optimizer_and_scheduler"}


def kill_in(method, step):
    """Let a method of the trainer kill the process once `step` steps are done."""
    original = getattr(HybridGRPOTrainer, method)

    def killed(self, *args, **kwargs):
        if self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **kwargs)

    setattr(HybridGRPOTrainer, method, killed)


if __name__ == "__main__":
    point, step, *options = sys.argv[1:]
    kill_in(POINTS[point], int(step))
    sys.argv = ["recipes/tinyllama_grpo.py", *options]
    runpy.run_path(sys.argv[0], run_name="__main__")
