"""benchmarks/verifier_agreement.py reads what it says, counts by hand-checked numbers and lists the disagreements."""

import gzip
import json
import sys
from pathlib import Path

import pytest


FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import verifier_agreement

    return verifier_agreement


def test_table_disagreements_and_golds(benchmark, tmp_path, monkeypatch, capsys):
    rows = [
        {"source": "a", "gold": "4", "completion": "\\boxed{4}", "label": True},
        {"source": "a", "answer": 4, "completion": "\\boxed{5}", "expected": True},
        {"solution": "4", "completion": "4", "correct": False, "level": "answer"},
        {"solution": "4", "completion": "5", "correct": True, "core": False},
    ]
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    worked = {"solution": "We take one and one, which makes in all: $\\boxed{2}$.", "answer": "2"}
    (tmp_path / "golds.jsonl").write_text(json.dumps(worked) + '\n{"answer": "7.0"}\n')
    listed, output = tmp_path / "d.jsonl", tmp_path / "o.json"
    options = [
        "--golds",
        tmp_path / "golds.jsonl",
        "--core",
        "--disagreements",
        listed,
        "--output",
        output,
        "--rivals",
    ]
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "rows.jsonl.gz"), *map(str, options)])
    benchmark.main()
    sources = json.loads(output.read_text())["sources"]
    ours = {source: (group["rows"], *group["judges"]["MathVerifier"].values()) for source, group in sources.items()}
    assert ours["a"] == (2, 0.5, 0, 1)
    assert ours["rows"] == (1, 0.0, 1, 0)
    # of two golds: itself, n + 1, 10 n, -n, another row's; and one worked solution
    assert ours["all"] == (3 + 2 * 5 + 1, round(12 / 14, 5), 1, 1)
    refused, accepted = map(json.loads, listed.read_text().splitlines())
    assert (refused["gold"], refused["answer"], refused["reason"], refused["expected"]) == ("4", "5", "mismatch", True)
    assert (accepted["reason"], accepted["form"], accepted["end"]) == ("exact", "box", "\\boxed{4}")
    assert "2 disagreements" in capsys.readouterr().out


@pytest.mark.slow
def test_a_rival_that_hangs_or_fails_refuses(benchmark):
    rows = [benchmark.Row("a", "42", text, True) for text in ("$42$", "$5^{5^{5^{5^5}}}$", "")]
    assert benchmark.run_rival("math-verify boxed", rows) == [True, False, False]
