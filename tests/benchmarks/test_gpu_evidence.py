import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_evidence.sh"
PARTS = [
    "tests",
    "maths",
    "step_streamed",
    "policy_update",
    "prefill",
    "one_thread",
    "long_prompt",
    "calls",
    "rivals",
    "step_zero3",
]


def run(folder, *parts, **environment):
    command = ["bash", str(SCRIPT), "--small", str(folder), *parts]
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=290, check=False)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_parts_run_at_small_size_and_none_twice(tmp_path):
    parts = ["tests", "step_streamed", "one_thread"]
    done = run(tmp_path, *parts)
    logs = "".join(f"{log.name}\n{log.read_text()[-2000:]}\n" for log in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + logs
    assert [line.partition(":")[0] for line in (tmp_path / "summary.txt").read_text().splitlines()] == parts
    one_thread = json.loads((tmp_path / "one_thread.json").read_text())
    assert one_thread["machine"]["threads"] == 1
    assert one_thread["sections"]["maths"][0]["ways"]["streamed"]["attention"]
    assert json.loads((tmp_path / "step_streamed" / "tiny_cpu.json").read_text())["cases"]
    assert 'errors="0" failures="0"' in (tmp_path / "tests.xml").read_text()

    again = run(tmp_path, *parts)
    assert again.returncode == 0
    assert again.stdout.count("done before") == len(parts)


@pytest.mark.parametrize(
    ("program", "parts"),
    [("reward_model_scoring", 5), ("scaling", 2), ("policy_update", 1), ("shared_prefill", 1)],
)
def test_every_part_s_command_is_one_that_its_program_takes(tmp_path, monkeypatch, program, parts):
    run(tmp_path, PYTHON="echo")
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    commands = [log.read_text().split() for log in tmp_path.glob("*.log")]
    own = [command for command in commands if command[0] == f"benchmarks/{program}.py"]
    assert len(own) == parts
    for command in own:
        monkeypatch.setattr(sys, "argv", command)
        import_module(program).read_arguments()


def test_what_there_is_no_time_for_is_said(tmp_path):
    done = run(tmp_path, EVIDENCE_SECONDS="10")
    assert done.returncode == 1
    assert (tmp_path / "summary.txt").read_text().splitlines() == [f"{part}: no time left" for part in PARTS]


def test_a_part_that_fails_stops_no_other(tmp_path):
    done = run(tmp_path, PYTHON="false")
    assert done.returncode == 1
    summary = (tmp_path / "summary.txt").read_text().splitlines()
    assert summary == [f"{part}: failed with status 1, see {part}.log" for part in PARTS]
