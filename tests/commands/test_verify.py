"""`trl-hybrid verify` grades a file as a user has it."""

import json

import pytest

from trl_hybrid.cli import main


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
    return main(["verify", "--verifier_num_workers", "1", *map(str, args)])


def test_verdicts_go_to_a_file_and_a_table(tmp_path, capsys):
    output = tmp_path / "verdicts.jsonl"
    assert verify("--completions", write(tmp_path / "c.jsonl", ROWS), "--output", output) == 0
    verdicts = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["correct"] for row in verdicts] == [True, False, True, None]
    assert [row["parsed_answer"] for row in verdicts] == ["4", "5", "0.5", "5"]
    assert verdicts[0]["note"] == "kept"
    assert verdicts[3]["reason"] == "unjudgeable"
    assert "right of all                       2   50.0%" in capsys.readouterr().out


def test_a_completion_that_was_cut_off_is_judged_as_in_training(tmp_path):
    texts = ("First 3 + 1 makes 4", "So \\boxed{4}. Then 4 + 1")
    rows = [{"completion": text, "answer": "4", "truncated": cut} for text in texts for cut in (False, True)]
    output = tmp_path / "verdicts.jsonl"
    verify("--completions", write(tmp_path / "c.jsonl", rows), "--output", output)
    assert [json.loads(line)["correct"] for line in output.read_text().splitlines()] == [True, False, True, True]


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
        ('{"completion": "x", "answer": "1", "truncated": "no"}', [], "true or false as `truncated`, got 'no'"),
        ('{"completion": null, "answer": "4"}', [], "must have text or a list of messages as `completion`, got null"),
        ('{"completion": [4], "answer": "4"}', [], "c.jsonl': `completion` must be a string or a list of messages"),
        ('{"completion": "x", "answer": "4", "prompt": [4]}', [], "`prompt` must be a string or a list of messages"),
        ('{"completion": "half a pair: \\ud83d", "answer": "4"}', [], "Line 1"),
        ('{"completion": "x"}', [], "answer or solution; it has completion"),
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


def test_a_bad_row_is_named_by_its_place_in_the_file_and_nothing_is_written(tmp_path, capsys):
    good, output = {"completion": "4", "answer": "4"}, tmp_path / "verdicts.jsonl"
    for bad, said in [([], "Row 301 of"), ("half a pair: \ud83d", "Line 301 of")]:
        file = write(tmp_path / "c.jsonl", [good] * 300 + [good | {"completion": bad}])
        with pytest.raises(SystemExit):
            verify("--completions", file, "--output", output)
        assert said in capsys.readouterr().err
        assert not output.exists()


def test_missing_file_and_existing_output(tmp_path, capsys):
    with pytest.raises(SystemExit):
        verify("--completions", tmp_path / "none.jsonl")
    assert "does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        verify("--completions", tmp_path)
    assert "is a folder. Name a JSONL file in it" in capsys.readouterr().err
    file = write(tmp_path / "c.jsonl", ROWS)
    for options in ([], ["--overwrite"]):
        with pytest.raises(SystemExit):
            verify("--completions", file, "--output", file, *options)
        assert "must be another file than --completions" in capsys.readouterr().err
    assert json.loads((tmp_path / "c.jsonl").read_text().splitlines()[0]) == ROWS[0]
    output = tmp_path / "verdicts.jsonl"
    output.write_text("mine\n")
    with pytest.raises(SystemExit):
        verify("--completions", file, "--output", output)
    assert "is not written over" in capsys.readouterr().err
    assert output.read_text() == "mine\n"
    assert verify("--completions", file, "--output", output, "--overwrite") == 0
    assert len(output.read_text().splitlines()) == 4


def verdicts_of(tmp_path, rows, *options):
    output = tmp_path / "verdicts.jsonl"
    verify("--completions", write(tmp_path / "c.jsonl", rows), "--output", output, *options)
    return [(row["correct"], row["reason"]) for row in map(json.loads, output.read_text().splitlines())]


def test_golds_that_training_leaves_out_judge_nothing(tmp_path, capsys):
    """Each would otherwise be called right or wrong, although no policy is ever paid for it."""
    golds = ["proof", "because the sum of the parts is the whole of them", "\\frac{1}{2", "a, b and c are equal", "4"]
    rows = [{"completion": f"\\boxed{{{gold}}}", "answer": gold} for gold in golds]
    assert verdicts_of(tmp_path, rows) == [(None, "unjudgeable")] * 4 + [(True, "exact")]
    shown = capsys.readouterr().out
    assert "not judged in 1: the gold is a placeholder (first in row 1, gold 'proof')" in shown
    assert "not judged in 2: the gold is no final answer (first in row 2" in shown


def test_golds_are_found_and_read_as_in_training(tmp_path):
    rows = [
        {"completion": "\\boxed{72}", "answer": "He has 72.\n#### 72", "solution": "It is \\boxed{1}."},
        {"completion": "\\boxed{72}", "reward_model": {"ground_truth": 72}, "answer": "1"},
        {"completion": "\\boxed{1, 2}", "answer": [1, 2]},
        {"completion": "\\boxed{88888889888888899}", "answer": 88888889888888899},
        {"completion": "\\boxed{1}", "answer": None},
    ]
    assert [correct for correct, _ in verdicts_of(tmp_path, rows)] == [True, True, True, True, None]


def test_byte_order_mark_and_other_encodings(tmp_path, capsys):
    file = tmp_path / "c.jsonl"
    file.write_text('{"completion": "\\\\boxed{4}", "answer": "4"}\n', encoding="utf-8-sig")
    assert verify("--completions", file) == 0
    assert "100.0%" in capsys.readouterr().out
    file.write_text('{"completion": "für", "answer": "4"}\n', encoding="latin-1")
    with pytest.raises(SystemExit):
        verify("--completions", file)
    assert "must be UTF-8, but has the byte 0xfc. It is probably CP1252" in capsys.readouterr().err


def test_column_of_the_golds_may_be_named(tmp_path):
    data = write(tmp_path / "tasks.jsonl", [{"question": "a", "answer": "1", "label": "2"}])
    rows = [{"completion": "\\boxed{2}"}]
    assert verdicts_of(tmp_path, rows, "--dataset_name", data, "--dataset_solution_column", "label")[0][0] is True


LABELLED = [
    {"completion": "so \\boxed{4}", "answer": "4", "label": True, "source": "kept"},
    {"completion": "so \\boxed{5}", "answer": "4", "label": True, "source": "kept"},
    {"completion": "The answer is 0.5.", "answer": "\\frac{1}{2}", "label": False},
    {"completion": "so \\boxed{5}", "answer": "nan", "label": True},
]


def test_disagreements_with_labels_are_listed_with_their_reasons(tmp_path, capsys):
    file, listed = write(tmp_path / "c.jsonl", LABELLED), tmp_path / "new" / "d.jsonl"
    assert verify("--completions", file, "--disagreements", listed) == 0
    refused, accepted = (json.loads(line) for line in listed.read_text().splitlines())
    assert refused == LABELLED[1] | {
        "gold_read": "4",
        "form": "box",
        "correct": False,
        "parsed_answer": "5",
        "reason": "mismatch",
    }
    assert (accepted["label"], accepted["correct"], accepted["form"]) == (False, True, "phrase")
    out = capsys.readouterr().out
    assert "agreement                          1   33.3%" in out  # one of the three that could be judged
    assert "2 disagreements (1 labelled right, 1 labelled wrong)" in out


def test_labels_may_have_a_name_of_their_own(tmp_path):
    rows = [{"completion": "\\boxed{4}", "answer": "4", "human": 1}, {"completion": "4", "answer": "5", "human": 1}]
    file, listed = write(tmp_path / "c.jsonl", rows), tmp_path / "d.jsonl"
    verify("--completions", file, "--disagreements", listed, "--label_column", "human")
    (line,) = listed.read_text().splitlines()
    assert json.loads(line)["answer"] == "5"


def test_disagreements_and_verdicts_go_to_two_files_however_they_are_named(tmp_path, capsys, monkeypatch):
    file = write(tmp_path / "c.jsonl", [{"completion": "4", "answer": "4", "label": False}])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        verify("--completions", file, "--output", "v.jsonl", "--disagreements", tmp_path / "v.jsonl")
    assert "must be two files" in capsys.readouterr().err
    assert not (tmp_path / "v.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "options", "said"),
    [
        ({}, [], "must say as label, expected or correct whether its completion is right; it has completion, answer"),
        ({"label": True}, ["--label_column", "human"], "must say as human"),
        ({"label": "yes"}, [], "must be true or false, got 'yes'"),
    ],
)
def test_disagreements_need_labels(tmp_path, capsys, row, options, said):
    file = write(tmp_path / "c.jsonl", [{"completion": "4", "answer": "4", **row}])
    with pytest.raises(SystemExit):
        verify("--completions", file, "--disagreements", tmp_path / "d.jsonl", *options)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "d.jsonl").exists()
