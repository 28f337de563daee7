"""benchmarks/reasoning_gym_agreement.py writes answers in notations of one value, and says who calls them right."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest


FOLDER = Path(__file__).parents[2] / "benchmarks"
MISSING = importlib.util.find_spec("reasoning_gym") is None
REQUIRED = os.environ.get("TRL_HYBRID_REQUIRE_ALL") == "1"

needs_library = pytest.mark.skipif(MISSING and not REQUIRED, reason="not installed: reasoning-gym")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import reasoning_gym_agreement

    return reasoning_gym_agreement


def test_an_answer_is_written_in_each_notation_that_it_has(benchmark):
    found = {answer.notation: answer.text for answer in benchmark.written("17/4", "3")}
    assert found == {
        "as given": "17/4",
        "sentence": "17/4",
        "LaTeX": "\\frac{17}{4}",
        "changed": "17/5",
        "another's": "3",
    }
    assert {answer.notation for answer in benchmark.written("Friday", "Friday")} == {"as given", "sentence"}
    assert [answer.text for answer in benchmark.written("12345", "7")][2:] == ["12,345", "12346", "7"]


@needs_library
def test_both_judges_are_counted_and_a_difference_is_shown_with_its_reason(benchmark, tmp_path, monkeypatch, capsys):
    output = tmp_path / "o.json"
    options = ["--generators", "gcd", "prime_factorization", "--problems", "6", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["x", *options])
    benchmark.main()
    written = json.loads(output.read_text())
    gcd = written["generators"]["gcd"]["notations"]
    assert gcd["as given"] == {"both_right": 6, "both_wrong": 0, "only_ours": 0, "only_theirs": 0}
    assert gcd["other digits"] == {"both_right": 0, "both_wrong": 0, "only_ours": 6, "only_theirs": 0}
    assert written["totals"]["as given"]["agreement"] == 1
    kinds = {kind["what"]: kind for kind in written["differences"]}
    assert kinds["gcd / other digits / only_ours"]["count"] == 6
    assert "compares text" in kinds["gcd / other digits / only_ours"]["why"]
    assert "gcd / other digits / only_ours: 6" in capsys.readouterr().out


@needs_library
def test_a_judge_that_fails_on_a_text_gives_no_score(benchmark):
    generator = benchmark.open_generator("prime_factorization", 3)
    assert benchmark.own_score(generator, str(generator[0]["answer"]), generator[0]) == 1
    assert str(benchmark.own_score(generator, "139.0", generator[0])) == "nan"


def test_every_difference_in_the_committed_results_has_its_reason():
    kept = json.loads((FOLDER / "results/reasoning_gym_agreement.json").read_text())
    assert len(kept["generators"]) >= 20
    assert not [kind["what"] for kind in kept["differences"] if kind["why"] == "not looked at"]
