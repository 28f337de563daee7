import importlib.util
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "policy_update.py"
TRL, SORTED, SHARED = "TRL", "TRL, sorted", "shared prompts"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("policy_update", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])  # where Python looks when it runs the script
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def part(script):
    return lambda name: import_module(f"updates.{name}")


def arguments(script, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return script.read_arguments()


def test_rows_are_padded_as_a_generation_leaves_them(part):
    cases = part("cases")
    rows = cases.make_rows(cases.Case("any", 20, (3, 10), group=4, rows=8), vocab_size=50)
    prompts, answers = (rows[f"{name}_mask"].sum(1) for name in ("prompt", "completion"))
    assert sorted(answers.tolist()) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert rows["num_items_in_batch"] == 52
    assert prompts.min() >= 18
    assert prompts.max() <= 22
    for row in range(8):
        assert rows["prompt_mask"][row].tolist() == sorted(rows["prompt_mask"][row].tolist())
        assert rows["completion_mask"][row].tolist() == sorted(rows["completion_mask"][row].tolist(), reverse=True)
    assert len(rows["prompt_ids"].unique(dim=0)) == 2
    assert len(rows["prompt_ids"][:4].unique(dim=0)) == 1
    assert rows["prompt_ids"][rows["prompt_mask"] == 1].min() >= cases.FIRST_ID


def test_sorted_rows_keep_their_advantages_and_lose_what_padding_they_can(part):
    cases = part("cases")
    prompt_ids, prompt_mask = cases.padded([[7], [7], [8, 8, 8], [8, 8, 8]], left=True)
    completion_ids, completion_mask = cases.padded([[5] * 4, [5], [6], [6, 6]], left=False)
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    rows = dict(zip(names, (prompt_ids, prompt_mask, completion_ids, completion_mask), strict=True))
    rows |= {"advantages": torch.tensor([1.0, 2.0, 3.0, 4.0]), "num_items_in_batch": torch.tensor(8)}
    short, long = cases.sorted_by_length(rows, 2)  # lengths 5, 2, 4, 5
    assert short["advantages"].tolist() == [2.0, 3.0]
    assert short["prompt_ids"].tolist() == [[0, 0, 7], [8, 8, 8]]
    assert short["completion_ids"].tolist() == [[5], [6]]
    assert long["advantages"].tolist() == [1.0, 4.0]
    assert long["completion_ids"].tolist() == [[5, 5, 5, 5], [6, 6, 0, 0]]
    assert long["num_items_in_batch"] == 8


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_three_ways_have_the_same_gradient_and_compute_the_tokens_that_they_say(script, part, tmp_path):
    cases, ways, crew = part("cases"), part("ways"), part("crew")
    case = cases.Case("any", 12, (2, 8), group=4, rows=16, micro_batch=4)
    options = {"layers": None, "lora": False, "device": "cpu", "bf16": False, "threads": 1, "checkpointing": False}
    setting = ways.Setting("tiny", **options)
    found, expected = {}, {}
    for way in ways.WAYS:
        worker = ways.Worker(way, setting, tmp_path)
        rows = worker.rows(case)
        found[way] = worker.update(case, rows)
        gradient = {name: value.clone() for name, value in worker.gradients()}
        expected = expected or gradient
        assert crew.difference(gradient.items(), expected) < 1e-6
    assert sum(value.abs().sum() for value in expected.values()) > 0
    assert found[TRL] == 16 * (rows["prompt_ids"].shape[1] + 8)
    assert found[SORTED] < found[TRL]
    # Each group's prompt but its last token, which comes before every answer in place of that one's last.
    assert found[SHARED] == script.describe_rows(case)["distinct_tokens"] - 4


def test_a_gradient_s_difference_is_a_part_of_the_expected_norm(part):
    difference = part("crew").difference
    expected = {"one": torch.tensor([3.0]), "two": torch.tensor([0.0, 4.0])}
    found = {"one": torch.tensor([3.0]), "two": torch.tensor([0.3, 4.4])}
    assert difference(found.items(), expected) == pytest.approx(0.1)
    with pytest.raises(ArithmeticError, match="two"):
        difference([("one", torch.tensor([3.0]))], expected)


class FakeCrew:
    """Answers with its calls' number as seconds; one way has no memory for it."""

    def __init__(self, without_memory):
        self.without_memory, self.calls = without_memory, []

    def ask(self, way, task, case):
        self.calls.append((task, way))
        if way == self.without_memory:
            return {"not_run": "CUDA out of memory"}
        return {"tokens": 7} if task == "observe" else {"seconds": float(len(self.calls))}


def test_ways_take_turns_and_one_that_runs_out_of_memory_has_none(script):
    crew, ways, ticks = FakeCrew(without_memory="a"), ["a", "b", "c"], []
    found = script.measure(crew, ways, None, 2, lambda: ticks.append(1))
    assert crew.calls == [*(("observe", way) for way in "abc"), *(("time", way) for way in "bcbc")]
    assert len(ticks) == 9
    assert found == {
        "a": {"not_run": "CUDA out of memory"},
        "b": {"tokens": 7, "seconds": [4.0, 6.0]},
        "c": {"tokens": 7, "seconds": [5.0, 7.0]},
    }


def figures_of(trl=(6.0, 8.0, 6.0), shared=(2.0, 2.0, 3.0), peak=2e9, difference=2e-6):
    return {
        "ways": {
            TRL: {"seconds": list(trl), "tokens": 4000, "peak_bytes": 3e9, "extra_bytes": 2e9},
            SORTED: {"not_run": "CUDA out of memory"},
            SHARED: {
                "seconds": list(shared),
                "tokens": 900,
                "peak_bytes": peak,
                "extra_bytes": 1e9,
                "gradient_difference": difference,
            },
        }
    }


def test_a_ratio_is_the_median_of_the_turns_and_has_a_spread(part):
    case = part("figures").with_ratios(figures_of())
    assert case["ratios"] == {TRL: {"median": 3.0, "least": 2.0, "most": 4.0}, SORTED: None}
    assert case["ways"][TRL]["median_seconds"] == 6.0


def outcomes(part, script, monkeypatch, name, **changes):
    figures = part("figures")
    setting = script.setting_of(script.CASES[0], arguments(script, monkeypatch))
    return [
        entry["outcome"] for entry in figures.targets_of(name, figures.with_ratios(figures_of(**changes)), setting)
    ]


def test_targets_are_met_missed_or_not_measured(script, part, monkeypatch):
    assert outcomes(part, script, monkeypatch, "short") == ["met", "met", "met"]
    assert outcomes(part, script, monkeypatch, "short", shared=(3.0, 3.0, 3.0)) == ["missed", "met", "met"]
    assert outcomes(part, script, monkeypatch, "long answers", shared=(6.0, 8.0, 6.0))[0] == "met"
    assert outcomes(part, script, monkeypatch, "long answers", shared=(6.5, 8.5, 6.5))[0] == "missed"
    assert outcomes(part, script, monkeypatch, "short", peak=3.1e9, difference=2e-5) == ["met", "missed", "missed"]
    assert outcomes(part, script, monkeypatch, "short", difference=None)[2] == "not measured"
    assert outcomes(part, script, monkeypatch, "short", difference=float("nan"))[2] == "missed"


def test_the_table_has_a_dash_for_what_did_not_run(part):
    figures = part("figures")
    header, _, row = figures.table({"short": figures.with_ratios(figures_of())})
    assert len(header) == len(row)
    cells = [text.strip() for text in row.strip("|").split("|")]
    assert cells == [
        "short", "6.00", "-", "2.00", "3.00 (2.00-4.00)", "-", "4,000 / - / 900", "3,000 / - / 2,000",
        "2,000 / - / 1,000", "2.0e-06",
    ]  # fmt: skip


def test_only_a_whole_run_writes_among_the_results(script, monkeypatch):
    assert arguments(script, monkeypatch).output == SCRIPT.parent / "results" / "policy_update.json"
    for options in (["--quick"], ["--layers", "2"], ["--cases", "short"], ["--shape", "tiny"], ["--bf16"]):
        assert arguments(script, monkeypatch, *options).output == SCRIPT.parents[1] / "runs" / "policy_update.json"


def test_the_estimate_of_the_time_counts_every_pass(script, monkeypatch):
    monkeypatch.setattr(script, "speed_of_products", lambda arguments: 1e11)
    seconds = {}
    for repeats in (1, 3):
        given = arguments(script, monkeypatch, "--cases", "short", "--layers", "30", "--repeats", str(repeats))
        seconds[repeats] = script.expected_seconds(script.cases_of(given), given) - script.LOADING_SECONDS
    assert seconds[3] == pytest.approx(2 * seconds[1])
    # 32 rows of 69 tokens, 6 operations a weight, 113M weights: 106M in the layers, a quarter of the head's 28M.
    assert seconds[1] == pytest.approx(2 * 2.3 * 6 * 113.3e6 * 2208 / 0.75e11, rel=0.01)


def test_the_help_lists_every_case(script, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        arguments(script, monkeypatch, "--help")
    text = capsys.readouterr().out
    assert all(f"  {case.name} " in text for case in script.CASES)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_ways_are_measured_in_processes_of_their_own(tmp_path):
    output = tmp_path / "results.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--cases", "short", "gsm8k", "--output", str(output)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=290, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads(output.read_text())
    assert list(report["cases"]) == ["short", "gsm8k"]
    for name, case in report["cases"].items():
        assert list(case["ways"]) == [TRL, SORTED, SHARED]
        assert all(
            len(way["seconds"]) == 1 and way["peak_bytes"] > way["extra_bytes"] > 0 for way in case["ways"].values()
        )
        assert case["ways"][SHARED]["gradient_difference"] < 1e-5
        assert f"target: {name}: gradient's difference from TRL's" in run.stdout
    written = output.read_text()
    assert str(Path.home()) not in written
    assert str(SCRIPT.parents[1]) not in written
