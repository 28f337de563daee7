"""`trl-hybrid verify` grades a file as a user has it."""

import json

import pytest

from trl_hybrid.cli import main


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.delenv("TRL_HYBRID_TRACEBACK", raising=False)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ROWS = [
    {"completion": "so \\boxed{4}", "solution": "4", "note": "kept"},
    {"completion": "so \\boxed{5}", "answer": 4},
    {"completion": "so \\boxed{0.5}", "gold": "\\frac{1}{2}"},
    {"completion": "so \\boxed{5}", "answer": "nan"},
]


def verify(*args):
    return main(["verify", "--num_workers", "1", *map(str, args)])


def test_verdicts_go_to_a_file_and_a_table(tmp_path, capsys):
    output = tmp_path / "verdicts.jsonl"
    assert verify("--completions", write(tmp_path / "c.jsonl", ROWS), "--output", output) == 0
    verdicts = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["correct"] for row in verdicts] == [True, False, True, None]
    assert [row["parsed_answer"] for row in verdicts] == ["4", "5", "0.5", "5"]
    assert verdicts[0]["note"] == "kept"
    assert verdicts[3]["reason"] == "unjudgeable"
    assert "right of all                       2   50.0%" in capsys.readouterr().out


def test_golds_of_a_data_set_by_line_and_by_index(tmp_path):
    data = write(tmp_path / "tasks.jsonl", [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}])
    by_line = write(tmp_path / "c.jsonl", [{"completion": "\\boxed{1}"}, {"completion": "\\boxed{1}"}])
    by_index = write(tmp_path / "i.jsonl", [{"completion": "\\boxed{2}", "index": i} for i in (1, 0, 1)])
    for number, (file, expected) in enumerate([(by_line, [True, False]), (by_index, [True, False, True])]):
        output = tmp_path / f"{number}.jsonl"
        verify("--completions", file, "--dataset_name", data, "--output", output)
        assert [json.loads(line)["correct"] for line in output.read_text().splitlines()] == expected


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ('{"completion": "x"', [], "Line 1"),
        ('{"text": "x"}', [], "must be a JSON object with `completion`"),
        ("\n", [], "holds no rows"),
        ('{"completion": "x"}', [], "must have a gold answer as solution, answer or gold; it has completion"),
        ('{"completion": "x", "answer": "1"}', ["--method", "guess"], "method must be one of"),
        ('{"completion": "x"}', ["--dataset_name", "data/dummy_math_tasks.jsonl"], "got 1 completions for 16 rows"),
        (
            '{"completion": "x", "index": 16}',
            ["--dataset_name", "data/dummy_math_tasks.jsonl"],
            "from 0 to 15, got 16",
        ),
    ],
)
def test_bad_input_says_the_rule_and_exits_with_2(tmp_path, capsys, content, options, said):
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(SystemExit) as stop:
        verify("--completions", tmp_path / "c.jsonl", *options)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_missing_file_and_existing_output(tmp_path, capsys):
    with pytest.raises(SystemExit):
        verify("--completions", tmp_path / "none.jsonl")
    assert "does not exist" in capsys.readouterr().err
    file = write(tmp_path / "c.jsonl", ROWS)
    with pytest.raises(SystemExit):
        verify("--completions", file, "--output", file)
    assert "is not written over" in capsys.readouterr().err
    assert json.loads((tmp_path / "c.jsonl").read_text().splitlines()[0]) == ROWS[0]
