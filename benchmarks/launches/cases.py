"""What is launched: configuration, processes, placement; and one launch."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("worker.py")
PATIENCE_SECONDS = 3600


@dataclass(frozen=True)
class Case:
    """One launch: a configuration of `accelerate_configs/`, how many processes, and the reward model's placement."""

    launch: str
    processes: int
    placement: str

    @property
    def label(self) -> str:
        """Its name in tables and pictures."""
        return f"{self.launch} x{self.processes}, {self.placement}"


EMBEDDED = (
    Case("cpu", 1, "resident"),
    *(Case(launch, 2, placement) for launch in ("multi_gpu", "zero2", "zero3") for placement in ("resident", "zero3")),
)
"""One process, and two in every way that shares out the policy or the reward model."""


def real_cases(gpus: int) -> list[Case]:
    """One GPU with the reward model in every place; with more GPUs two processes too."""
    one = [Case("single_gpu" if gpus else "cpu", 1, placement) for placement in ("resident", "streamed", "zero3")]
    if not gpus:  # streaming is for GPUs
        one = [case for case in one if case.placement != "streamed"]
    return one if gpus < 2 else [*one, *(Case("multi_gpu", 2, case.placement) for case in one)]


def launch(case: Case, settings: dict[str, Any], folder: Path, on_cpu: bool, bf16: bool) -> dict[str, Any]:
    """Launch a case as a user does, and wait for its report.

    Args:
        case: What is launched.
        settings: The worker's.
        folder: For files in between.
        on_cpu: Run a GPU configuration on a CPU.
        bf16: Mixed precision; otherwise fp32.

    Returns:
        The worker's report, or `not_run` with the last lines that the launch wrote.
    """
    folder.mkdir(parents=True)
    config = yaml.safe_load((ROOT / "accelerate_configs" / f"{case.launch}.yaml").read_text())
    # Port 0 is any free one.
    config |= {"num_processes": case.processes, "main_process_port": 0}
    config |= {"use_cpu": on_cpu, "mixed_precision": "bf16" if bf16 else "no"}
    (folder / "launch.yaml").write_text(yaml.safe_dump(config))
    (folder / "settings.json").write_text(json.dumps({**settings, "placement": case.placement}))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "launch.yaml", str(WORKER)]
    done = subprocess.run(
        [*command, "settings.json", "report.json"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.stderr.write(done.stdout)
        errors = [line for line in done.stdout.splitlines() if "Error" in line]
        return {"not_run": errors[0].strip()[:200] if errors else f"exit status {done.returncode}"}
    return json.loads((folder / "report.json").read_text())
