"""Answers are read as they are written; what is broken in a file is said with its line; a path is a path."""

import json
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from trl_hybrid.data import load_tasks, load_test_tasks
from trl_hybrid.data.text_rows import csv_rows, json_rows, parse_row
from trl_hybrid.errors import InputError


LONG = "88888889888888899"  # a float of 64 bits makes 88888889888888896 of it
VERY_LONG = "123456789012345678901234567890"

streamed = pytest.mark.parametrize("streaming", [False, True])


def golds(path, **kwargs):
    return [task["solution"] for task in load_tasks(str(path), **kwargs)]


class TestNumbers:
    @streamed
    def test_csv_keeps_what_is_written(self, tmp_path, streaming):
        written = [LONG, "", "007", VERY_LONG, "0.10", "1e3", "2024-01-05", "5.0"]
        (tmp_path / "a.csv").write_text("question,answer\n" + "".join(f"What?,{gold}\n" for gold in written))
        assert golds(tmp_path / "a.csv", streaming=streaming) == [*written[:-1], "5"]

    @streamed
    def test_json_keeps_what_is_written(self, tmp_path, streaming):
        written = [LONG, "null", VERY_LONG, "0.10", "1e3", "-7.0", '"007"', '"2024-01-05"', '"5.0"', "true"]
        lines = "".join(f'{{"question": "What?", "answer": {gold}}}\n' for gold in written)
        (tmp_path / "a.jsonl").write_text(lines)
        expected = [LONG, "", VERY_LONG, "0.10", "1e3", "-7", "007", "2024-01-05", "5.0", "True"]
        assert golds(tmp_path / "a.jsonl", streaming=streaming) == expected
        (tmp_path / "b.json").write_text(f"[{','.join(lines.splitlines())}]")
        assert golds(tmp_path / "b.json", streaming=streaming) == expected

    def test_numbers_in_lists_and_fields(self, jsonl):
        file = jsonl([{"question": "q", "reward_model": {"ground_truth": [int(VERY_LONG), 0.5]}}])
        assert golds(file) == [f"{VERY_LONG}, 0.5"]

    def test_answers_of_several_kinds_in_one_column(self, jsonl):
        rows = [{"question": "q", "answer": answer} for answer in (5, "x", [1, 2], None)]
        assert golds(jsonl([*rows, {"question": "q"}])) == ["5", "x", "1, 2", "", ""]

    def test_parquet_keeps_its_types(self, tmp_path):
        pd.DataFrame({"question": ["q", "q"], "answer": [int(LONG), 7]}).to_parquet(tmp_path / "a.parquet")
        assert golds(tmp_path / "a.parquet") == [LONG, "7"]

    def test_changed_file_is_read_anew(self, tmp_path):
        for gold in ("5", "66"):
            (tmp_path / "a.csv").write_text(f"question,answer\nq,{gold}\n")
            assert golds(tmp_path / "a.csv") == [gold]

    def test_no_number_of_a_row_is_parsed(self):
        assert parse_row('{"a": [1, {"b": 2.50}], "c": NaN}') == {"a": ["1", {"b": "2.50"}], "c": "NaN"}


class TestForms:
    @pytest.mark.parametrize(
        "content",
        [
            '[\n  {"question": "a", "answer": 1},\n  {"question": "b", "answer": 2}\n]\n',
            '{"question": {"0": "a", "1": "b"}, "answer": {"0": 1, "1": 2}}',
            '{\n"question": ["a", "b"],\n"answer": [1, 2]\n}',
            '{"question": "a", "answer": 1}\n\n{"question": "b", "answer": 2}',
        ],
    )
    def test_json_documents_and_lines(self, tmp_path, content):
        (tmp_path / "a.json").write_text(content)
        tasks = load_tasks(str(tmp_path / "a.json"))
        assert [(task["prompt"][0]["content"], task["solution"]) for task in tasks] == [("a", "1"), ("b", "2")]

    def test_one_object_over_several_lines_is_one_row(self, tmp_path):
        (tmp_path / "a.json").write_text('{\n "question": "a",\n "answer": "1"\n}')
        assert golds(tmp_path / "a.json") == ["1"]

    @pytest.mark.parametrize(("suffix", "content"), [
        ("jsonl", '{"question": "a", "answer": "1"}\n'), ("json", '[{"question": "a", "answer": "1"}]'),
        ("csv", "question,answer\na,1\n"),
    ])  # fmt: skip
    def test_byte_order_mark(self, tmp_path, suffix, content):
        (tmp_path / f"a.{suffix}").write_text(content, encoding="utf-8-sig")
        assert golds(tmp_path / f"a.{suffix}") == ["1"]

    def test_quoted_cells_hold_commas_quotes_and_lines(self, tmp_path):
        (tmp_path / "a.csv").write_text('question,answer\r\n"Of 1, 2 and ""3""\nthe sum?",6\r\n')
        assert load_tasks(str(tmp_path / "a.csv"))["prompt"] == [
            [{"role": "user", "content": 'Of 1, 2 and "3"\nthe sum?'}]
        ]

    def test_line_separators_within_text_end_no_row(self, jsonl, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"question": "a\u2028b\x85", "answer": "1"}\n', encoding="utf-8")
        assert golds(tmp_path / "a.jsonl") == ["1"]

    def test_slices_of_a_text_file(self, tmp_path):
        (tmp_path / "a.csv").write_text("question,answer\n" + "".join(f"q,{n}\n" for n in range(10)))
        assert golds(tmp_path / "a.csv", split="train[:2]+train[90%:]") == ["0", "1", "9"]


class TestNames:
    """`datasets` reads brackets in a name as a pattern."""

    @streamed
    @pytest.mark.parametrize("name", ["run[v1]", "{a,b}", "all*", "what?", "[", "%20 x"])
    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_a_path_is_a_path(self, tmp_path, name, suffix, streaming):
        folder = tmp_path / name
        folder.mkdir()
        for file, gold in ((name, "1"), ("train", "2"), ("test", "3")):
            rows = pd.DataFrame({"question": ["q"], "answer": [gold]})
            path = folder / f"{file}.{suffix}" if file != name else tmp_path / f"{name}.{suffix}"
            rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
        assert golds(tmp_path / f"{name}.{suffix}", streaming=streaming) == ["1"]
        assert golds(folder, streaming=streaming) == ["2"]
        assert load_test_tasks(str(folder), streaming=streaming)["solution"] == ["3"]


class TestSaved:
    """What `save_to_disk` made."""

    @streamed
    def test_splits(self, tmp_path, streaming):
        rows = {name: Dataset.from_dict({"question": ["q", "q"], "answer": golds}) for name, golds in
                (("train", ["1", "2"]), ("test", ["3", "4"]))}  # fmt: skip
        DatasetDict(rows).save_to_disk(tmp_path / "saved")
        assert golds(tmp_path / "saved", streaming=streaming) == ["1", "2"]
        assert load_test_tasks(str(tmp_path / "saved"), streaming=streaming)["solution"] == ["3", "4"]
        assert load_test_tasks(str(tmp_path / "saved"), split="dev") is None
        with pytest.raises(InputError, match=r"'dev'. Should be one of \['train', 'test'\]"):
            load_tasks(str(tmp_path / "saved"), split="dev")

    def test_single_data_set_is_one_split_as_a_file_is(self, tmp_path):
        Dataset.from_dict({"question": ["q"] * 4, "answer": ["1", "2", "3", "4"]}).save_to_disk(tmp_path / "saved")
        assert golds(tmp_path / "saved") == ["1", "2", "3", "4"]
        assert golds(tmp_path / "saved", split="train[:25%]") == ["1"]
        assert load_test_tasks(str(tmp_path / "saved")) is None
        assert load_test_tasks(str(tmp_path / "saved"), split="train[3:]")["solution"] == ["4"]

    def test_classes_have_names(self, tmp_path):
        classes = ClassLabel(names=["no", "yes"])
        features = Features({"question": Value("string"), "answer": classes, "answers": List(classes)})
        rows = {"question": ["q"] * 3, "answer": [1, 0, -1], "answers": [[1], [0, 1], []]}
        Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
        assert golds(tmp_path / "saved") == ["yes", "no", ""]
        assert golds(tmp_path / "saved", solution_column="answers") == ["yes", "no, yes", ""]


class TestBrokenFiles:
    @pytest.mark.parametrize(
        ("file", "content", "said"),
        [
            ("a.jsonl", '{"question": "q", "answer": "1"}\n\n{"question": "q" "answer"}', r"Line 3 of '.*a.jsonl'.*'"),
            ("a.jsonl", '{"question": "q", "answer": "1"}\n["q", "1"]', r"Line 2 of .* JSON object .* got \[\"q\""),
            ("a.json", '[{"question": "q",\n "answer": 1},\n {"question" "q"}]', r"Line 3 of '.*a.json' is not JSON"),
            ("a.json", '[{"question": "q"}, 5]', r"Entry 2 of .* must be a JSON object .* got \"5\""),
            ("a.csv", "question,answer\nq,1\nOf 2, 3 and 4?,9\n", r"Line 3 of .* must have 2 values .*got 3.*quotes"),
            ("a.csv", 'question,answer\n"q,1\n', r"Line 2 of .* is not CSV"),
            ("a.csv", "question;answer\nq;1\n", r"separated by commas.*'question;answer', has semicolons.*sep=';'"),
            ("a.csv", "question\tanswer\nq\t1\n", r"has tabs"),
        ],
    )
    @streamed
    def test_the_line_is_named(self, tmp_path, file, content, said, streaming):
        (tmp_path / file).write_text(content)
        with pytest.raises(InputError, match=said):
            golds(tmp_path / file, streaming=streaming)

    @pytest.mark.parametrize(("encoding", "named"), [("latin-1", "0xfc.* probably CP1252"), ("utf-16", "UTF-16")])
    @pytest.mark.parametrize("file", ["a.csv", "a.jsonl"])
    def test_another_encoding_is_named_with_its_conversion(self, tmp_path, encoding, named, file):
        content = "question,answer\nq,1\nMüller?,2\n"
        if file == "a.jsonl":
            rows = [{"question": "q", "answer": "1"}, {"note": 1}, {"question": "Müller?"}]
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / file).write_text(content, encoding=encoding)
        line = 1 if encoding == "utf-16" else 3
        with pytest.raises(InputError, match=rf"Line {line} of .*{file}' must be UTF-8, .*{named}: .*iconv -f"):
            golds(tmp_path / file)

    def test_local_data_have_no_configuration(self, tmp_path):
        (tmp_path / "a.parquet").write_text("no parquet")
        with pytest.raises(InputError, match=r"a.parquet' cannot be loaded: (?s:.)*Check the file"):
            golds(tmp_path / "a.parquet")
        with pytest.raises(InputError, match=r"'data/addition' \(split 'dev'\) cannot be loaded"):
            golds("data/addition", split="dev")

    def test_list_of_fields_is_not_told_to_name_a_field(self, jsonl):
        file = jsonl([{"question": "q", "answer": [{"value": "5"}]}])
        with pytest.raises(InputError, match=r"holds a list of \{'value': '5'\}\. Make a column of final answers"):
            golds(file)

    def test_a_file_that_is_refused_is_closed_at_once(self, tmp_path, monkeypatch):
        opened = []
        plain = Path.open
        monkeypatch.setattr(
            Path, "open", lambda path, *args, **kw: opened.append(plain(path, *args, **kw)) or opened[-1]
        )
        for name, content, rows in (("a.csv", "q;a\n1;2\n", csv_rows), ("a.jsonl", '{"q": "1"}\n{"q"\n', json_rows)):
            (tmp_path / name).write_bytes(content.encode())
            with pytest.raises(InputError) as refused:
                list(rows(tmp_path / name))
            assert refused.value is not None  # whose traceback holds on to the frames that read
            assert opened
            assert all(file.closed for file in opened)
