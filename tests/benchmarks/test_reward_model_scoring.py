import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "reward_model_scoring.py"
ROWS = 16


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("reward_model_scoring", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The script's output and figures of a run at its smallest size."""
    output = tmp_path_factory.mktemp("scoring") / "results.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--sections", "maths", "scaling", "--output", str(output)]
    command += ["--ways", "resident", "trl", "one_row", "group_offload", "--scaling-ways", "resident"]
    command += ["--scaling-completions", "8", "--processes", "1", "2", "--threads", "1"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert run.returncode == 0, run.stderr
    return run.stdout, output.read_text()


@pytest.fixture
def report(run):
    return json.loads(run[1])


def test_every_way_is_measured_or_has_a_reason(script, report):
    ways = report["workloads"]["maths"]["ways"]
    assert list(ways) == list(script.WAYS)
    assert ways["group_offload"] == {"not_run": "needs a GPU"}
    assert ways["streamed"] == {"not_run": "not asked for"}
    for name in ("resident", "trl", "one_row"):
        assert len(ways[name]["seconds"]) == report["repeats"] == 1
        assert ways[name]["peak_bytes"] >= ways[name]["extra_bytes"] >= 0
        assert ways[name]["times_trl"] == pytest.approx(ways["trl"]["seconds"][0] / ways[name]["seconds"][0])


def test_tokens_are_counted_where_they_are_computed(report):
    maths = report["workloads"]["maths"]
    computed = {name: way.get("computed_tokens") for name, way in maths["ways"].items()}
    assert maths["padded_tokens"] == ROWS * maths["longest"] > maths["real_tokens"]
    assert computed["trl"] == maths["padded_tokens"]
    assert computed["one_row"] == maths["real_tokens"]
    assert 0 < computed["resident"] <= maths["padded_tokens"]


def test_all_ways_give_the_scores_of_one_row_at_a_time(report):
    ways = report["workloads"]["maths"]["ways"]
    assert ways["one_row"]["largest_difference"] == 0
    assert ways["resident"]["largest_difference"] < 1e-4
    assert ways["trl"]["largest_difference"] < 1e-4


def test_one_and_two_processes_score_all_rows(report):
    one, two = report["scaling"]
    assert (one["processes"], one["completions"], one["times_one"]) == (1, 8, 1)
    assert (two["processes"], two["completions"]) == (2, 8)
    for entry in (one, two):
        assert entry["rows_per_second"] == pytest.approx(8 / entry["median_seconds"])


def test_targets_are_judged_and_printed(run, report):
    outcomes = {target["claim"]: target["outcome"] for target in report["targets"]}
    assert outcomes["largest difference of any placement from fp32"] == "met"
    assert outcomes["long prompt: resident, times one row's speed"] == "not measured"
    for text in [*outcomes, "not run: needs a GPU", "resident, 2"]:
        assert text in run[0]


def test_the_figures_name_the_machine_and_no_path(run, report):
    assert {"cpu", "cores", "threads", "versions"} <= report["machine"].keys()
    assert str(Path.home()) not in run[1]
    assert str(SCRIPT.parents[1]) not in run[1]


@pytest.mark.parametrize("completions", [16, 64, 256])
def test_maths_rows_have_the_same_mean_at_any_number(script, completions):
    rows = script.maths_rows(completions, scale=0.45, vocab_size=2048, seed=0)
    assert len(rows) == len(set(rows)) == completions
    assert statistics.mean(map(len, rows)) == pytest.approx(0.45 * (95 + 550), rel=0.02)
    assert max(map(len, rows)) <= 0.45 * (130 + 2048)
    assert min(map(min, rows)) > script.PAD_ID
    assert rows == script.maths_rows(completions, scale=0.45, vocab_size=2048, seed=0)


def test_a_group_of_long_prompt_rows_shares_300_tokens(script):
    rows = script.long_prompt_rows(16, scale=1.0, vocab_size=2048, seed=0)
    assert {len(row) for row in rows} == {500}
    assert len({row[:300] for row in rows}) == 2
    assert all(one[:300] == two[:300] for one, two in pairwise(rows[:8]))


def test_length_buckets_keep_the_order_and_the_budget(script, monkeypatch):
    batches = []

    def score_batch(plain, rows):
        batches.append([len(row) for row in rows])
        return [row[0] for row in rows]

    monkeypatch.setattr(script, "score_batch", score_batch)
    plain = script.Plain(model=None, device="cpu", token_budget=8)
    assert script.score_in_buckets(plain, [(1,) * 2, (2,) * 9, (3,) * 4, (4,) * 3]) == [1, 2, 3, 4]
    assert batches == [[9], [4, 3], [2]]


def test_a_failure_becomes_a_reason_without_paths(script):
    def fail():
        raise OSError("no weights in '/somewhere/secret' for us\nmore")

    reason = script.attempt(fail)
    assert str(reason) == "OSError: no weights in '...' for us"


def test_a_target_is_met_missed_or_not_measured(script):
    assert script.Target("speed", 4.5, 4.5).outcome == "met"
    assert script.Target("speed", 4.4, 4.5).outcome == "missed"
    assert script.Target("memory", 0.2, 1 / 3, at_least=False).outcome == "met"
    assert script.Target("memory", None, 1 / 3, at_least=False).outcome == "not measured"


def test_a_score_that_is_not_a_number_is_no_small_difference(script):
    ways = {"resident": {"scores": [1.0, math.nan, 2.0], "seconds": [1.0]}}
    script.summarise(ways, [1.0, 1.0, 1.5])
    assert math.isnan(ways["resident"]["largest_difference"])
    assert script.cpu_targets({"maths": ways})[-1].outcome == "missed"
