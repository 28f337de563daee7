import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "reward_model_scoring.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("reward_model_scoring", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])  # where Python looks when it runs the script
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The script's output and figures of a run at its smallest size."""
    output = tmp_path_factory.mktemp("scoring") / "results.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--sections", "maths", "scaling", "--output", str(output)]
    command += ["--ways", "resident", "trl", "one_row", "group_offload"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=380)
    assert run.returncode == 0, run.stderr
    return run.stdout, output.read_text()


@pytest.fixture
def report(run):
    return json.loads(run[1])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_way_is_measured_or_has_a_reason(report):
    [maths] = report["sections"]["maths"]
    ways = maths["ways"]
    assert list(ways) == ["resident", "trl", "one_row", "group_offload"]
    assert ways.pop("group_offload") == {"not_run": "needs a GPU"}
    for way in ways.values():
        assert len(way["seconds"]) == report["repeats"] == 1
        assert way["median_seconds"] == way["seconds"][0] > 0
        assert way["peak_bytes"] >= way["extra_bytes"] >= 0
        assert way["attention"] == ["flash"]
        assert max(way["kernels"].values()) == next(iter(way["kernels"].values())) > 0.1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_all_ways_give_the_scores_of_one_row_at_a_time(report):
    ways = report["sections"]["maths"][0]["ways"]
    assert ways["one_row"]["largest_difference"] == 0
    assert ways["resident"]["largest_difference"] < 1e-4
    assert ways["trl"]["largest_difference"] < 1e-4


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_one_and_two_processes_score_all_rows(report):
    scaling = report["sections"]["scaling"]
    assert [workload["rows"] for workload in scaling] == [8, 16]
    for workload in scaling:
        assert list(workload["ways"]) == ["resident", "resident x2"]
        assert all(way["median_seconds"] > 0 for way in workload["ways"].values())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_targets_are_judged_and_printed(run, report):
    outcomes = {target["claim"]: target["outcome"] for target in report["sections"]["maths"][0]["targets"]}
    assert outcomes["resident, largest difference"] == "met"
    assert outcomes["streamed, largest difference"] == "not measured"
    for text in [*outcomes, "not run: needs a GPU", "resident x2"]:
        assert text in run[0]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_figures_name_the_machine_and_no_path(run, report):
    assert {"cpu", "cores", "threads", "versions"} <= report["machine"].keys()
    assert str(Path.home()) not in run[1]
    assert str(SCRIPT.parents[1]) not in run[1]


def test_an_interrupted_run_keeps_its_finished_sections(script, monkeypatch, tmp_path):
    def run_section(section, arguments, setting):
        if section == "scaling":
            raise KeyboardInterrupt
        return [section]

    output = tmp_path / "results.json"
    monkeypatch.setattr(script, "run_section", run_section)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--quick", "--output", str(output)])
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with pytest.raises(KeyboardInterrupt):
        script.main()
    assert json.loads(output.read_text())["sections"] == {"maths": ["maths"], "long_prompt": ["long_prompt"]}


def test_the_served_way_needs_a_server(script, monkeypatch):
    ways = import_module("scoring.ways")
    monkeypatch.delenv(ways.SERVER_VARIABLE, raising=False)
    assert ways.obstacle(ways.WAYS["served"], "cpu", 1) == "there is no server (--vllm)"
    monkeypatch.setenv(ways.SERVER_VARIABLE, "http://a:1")
    assert ways.obstacle(ways.WAYS["served"], "cpu", 1) is None


@pytest.mark.slow
def test_a_failure_becomes_a_reason(script, tmp_path):
    crew = script.Crew("one_row", script.Setting(str(tmp_path), "cpu", threads=1))
    [results] = script.measure([crew], [lambda turn: [(300, 301)]], repeats=1)
    assert list(results["one_row"]) == ["not_run"]
    assert "Error: " in results["one_row"]["not_run"]
    assert "\n" not in results["one_row"]["not_run"]


def fake_crew(label, seconds):
    """A crew of one process that takes these seconds, pass by pass, and notes what it is given in `calls`."""
    crew = SimpleNamespace(label=label, failure=None, calls=[])

    def score(rows, task="observe"):
        crew.calls.append((task, rows))
        if task == "profile":
            return [{"kernels": {"mm": 1.0}, "attention": ["math"]}]
        return [{"seconds": seconds[len(crew.calls) - 1], "peak": 7, "held": 5, "scores": [1.0]}]

    crew.score = score
    return crew


def test_the_first_pass_warms_up_and_a_slow_way_is_timed_by_it_alone(script):
    crew = import_module("scoring.crew")
    too_long = crew.SLOW_SECONDS + 1.0
    quick, slow = fake_crew("quick", [9.0, 1.0, 3.0, 2.0]), fake_crew("slow", [too_long])
    results = crew.take_turns([quick, slow], lambda turn: [(300 + turn,)], repeats=3)
    assert results["quick"]["seconds"] == [1.0, 3.0, 2.0]
    assert results["quick"]["median_seconds"] == 2.0
    assert results["quick"]["extra_bytes"] == 2
    assert results["slow"]["seconds"] == [too_long]
    assert quick.calls == [*(("observe", [(300 + turn,)]) for turn in range(4)), ("profile", [(304,)])]
    assert slow.calls == [("observe", [(300,)])]
    assert results["quick"]["attention"] == ["math"]
    assert "attention" not in results["slow"]


@pytest.mark.parametrize("completions", [16, 64, 256])
def test_maths_rows_have_the_same_mean_at_any_number(script, completions):
    rows = script.maths_rows(completions, scale=0.45, vocab_size=2048)
    assert len(rows) == len(set(rows)) == completions
    assert statistics.mean(map(len, rows)) == pytest.approx(0.45 * (95 + 550), rel=0.02)
    assert max(map(len, rows)) <= 0.45 * (130 + 2048)
    assert min(map(min, rows)) > import_module("scoring.workload").PAD_ID
    assert rows == script.maths_rows(completions, scale=0.45, vocab_size=2048)


def test_every_pass_has_rows_of_other_lengths(script):
    first, second = (script.maths_rows(64, scale=1.0, vocab_size=2048, seed=turn) for turn in range(2))
    assert sorted(map(len, first)) != sorted(map(len, second))
    assert set(first).isdisjoint(second)
    assert sum(map(len, first)) == pytest.approx(sum(map(len, second)), rel=0.02)


def test_the_path_of_attention_is_read_off_the_kernels(script):
    paths = import_module("scoring.kernels").attention_paths
    assert paths(["void cudnn_generated_fort_native_sdpa_sm90_flash_fprop", "ampere_bf16_gemm"]) == ["cudnn"]
    assert paths(["fmha_cutlassF_bf16_aligned_64x128"]) == ["efficient"]
    assert paths(["softmax_warp_forward", "ampere_bf16_gemm"]) == ["math"]


def test_an_estimate_of_memory_is_held_to_15_percent_of_the_peak(script):
    for planned, outcome in ((11.4e9, "met"), (8.6e9, "met"), (11.6e9, "missed"), (8.4e9, "missed")):
        way = {"planned_bytes": planned, "peak_bytes": 10e9}
        assert script.plan_target("resident", way)["outcome"] == outcome


def test_a_group_of_long_prompt_rows_shares_300_tokens(script):
    rows = script.long_prompt_rows(16, scale=1.0, vocab_size=2048)
    assert {len(row) for row in rows} == {500}
    assert len({row[:300] for row in rows}) == 2
    assert all(one[:300] == two[:300] for one, two in pairwise(rows[:8]))


def test_length_buckets_keep_the_order_and_the_budget(script, monkeypatch):
    ways = import_module("scoring.ways")
    batches = []

    def forward(model, device, rows, **options):
        batches.append([len(row) for row in rows])
        return [row[0] for row in rows]

    monkeypatch.setattr(ways, "forward", forward)
    monkeypatch.setitem(ways.BUCKET_TOKENS, "cpu", 8)
    assert ways.in_buckets(None, "cpu", [(1,) * 2, (2,) * 9, (3,) * 4, (4,) * 3]) == [1, 2, 3, 4]
    assert batches == [[9], [4, 3], [2]]


def test_a_target_is_met_missed_or_not_measured(script):
    assert script.target("speed", 4.5, 4.5)["outcome"] == "met"
    assert script.target("speed", 4.4, 4.5)["outcome"] == "missed"
    assert script.target("memory", 0.2, 1 / 3, at_least=False)["outcome"] == "met"
    assert script.target("memory", None, 1 / 3, at_least=False)["outcome"] == "not measured"


def test_a_score_that_is_not_a_number_is_no_small_difference(script):
    ways = {"resident": {"scores": [1.0, math.nan, 2.0]}, "one_row": {"scores": [1.0, 1.0, 1.5]}}
    script.add_differences(ways, "one_row")
    assert math.isnan(ways["resident"]["largest_difference"])
    targets = {entry["claim"]: entry["outcome"] for entry in script.targets_of("maths", {"ways": ways}, "cpu")}
    assert targets["resident, largest difference"] == "missed"
