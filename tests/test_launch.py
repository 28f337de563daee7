"""Real processes: rewards over several of them, and the main job as a user starts it."""

import json
import subprocess
import sys

import pytest

from trl_hybrid.hybrid.combine import combine_hybrid_score


ACCELERATE = [
    sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_machines", "1", "--mixed_precision", "no",
    "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1",
]  # fmt: skip
RECIPE = ["recipes/tinyllama_grpo.py", "--config", "recipes/configs/embedded.yaml"]


def launch(script, processes=1, timeout=300, check=True):
    several = ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else []
    command = [*ACCELERATE, "--num_processes", str(processes), *several, *map(str, script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if check and result.returncode:
        pytest.fail(f"{' '.join(command)} exited with {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


class TestTwoProcesses:
    def test_same_completions_are_paid_the_same_also_where_a_group_is_split(self, tmp_path):
        paid = {}
        for processes in (1, 2):
            file = tmp_path / f"{processes}.json"
            launch(["tests/launch/gathered_rewards.py", file, tmp_path / f"run{processes}"], processes)
            paid[processes] = json.loads(file.read_text())
        assert [paid[n]["processes"] for n in (1, 2)] == [1, 2]
        assert paid[2]["rewards"] == [pytest.approx(row, abs=1e-5) for row in paid[1]["rewards"]]

        rows = paid[2]["rewards"]
        assert [v for v, _, _ in rows] == [float(i % 5 < 2) for i in range(24)]
        for start in (0, 8, 16):
            group = rows[start : start + 8]
            for verdict, score, reward in group:
                stratum = [s for v, s, _ in group if v == verdict]
                expected = combine_hybrid_score(verdict, score, min(stratum), max(stratum))
                assert reward == pytest.approx(expected, abs=1e-4)
