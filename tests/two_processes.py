"""Two processes on this machine's CPU, as accelerate starts them."""

import json
import subprocess
import sys
from pathlib import Path


DATA_PARALLEL = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "MULTI_GPU",  # MULTI_CPU starts one process
    "num_machines": 1,
    "num_processes": 2,
    "use_cpu": True,
    "mixed_precision": "no",
    "main_process_port": 0,
}
"""Settings of a launch, the policy whole in each process."""


def launch(folder, settings, script, *arguments):
    """Run a script to its end by a launch's settings, from the repository's root."""
    (folder / "launch.json").write_text(json.dumps(settings))
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", folder / "launch.json"]
    command = [str(part) for part in (*accelerate, script, *arguments)]
    subprocess.run(command, check=True, timeout=280, cwd=Path(__file__).parents[1])
