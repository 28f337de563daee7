"""A run's rows are on disk as soon as they are logged, and are the run's after a resume."""

import json
from types import SimpleNamespace

import pytest

from trl_hybrid.errors import InputError
from trl_hybrid.runs.history import read_history
from trl_hybrid.runs.history_writer import RunHistory


def state(*rows, main=True):
    return SimpleNamespace(log_history=list(rows), is_world_process_zero=main)


def test_each_row_is_there_when_it_was_logged(tmp_path):
    history = RunHistory(tmp_path)
    history.on_train_begin(None, state(), None)
    assert read_history(tmp_path) == []
    history.on_log(None, state({"step": 1, "kl": float("nan")}), None)
    history.on_log(None, state({"step": 1}, {"step": 2, "kl": 0.5}), None)
    assert read_history(tmp_path) == [{"step": 1, "kl": None}, {"step": 2, "kl": 0.5}]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    history = RunHistory(tmp_path)
    history.on_train_begin(None, state({"step": 1}, {"step": 2}), None)
    history.on_log(None, state({"step": 3, "again": True}), None)
    assert read_history(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_only_the_main_process_writes(tmp_path):
    history = RunHistory(tmp_path)
    history.on_train_begin(None, state(main=False), None)
    history.on_log(None, state({"step": 1}, main=False), None)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_off_last_line_is_left_out_and_another_one_named(tmp_path):
    file = tmp_path / "history.jsonl"
    file.write_text('{"step": 1}\n{"step": 2, "k')
    assert read_history(tmp_path) == [{"step": 1}]
    file.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(InputError, match=r"Line 1 of .*history.jsonl' is no JSON"):
        read_history(tmp_path)


def test_without_the_file_the_newest_whole_checkpoint_tells(tmp_path):
    from safetensors.numpy import save_file

    assert read_history(tmp_path) == []
    for step in (2, 4):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        save_file({}, checkpoint / "model.safetensors")
        rows = [{"step": step, "grad_norm": float("nan")}]
        (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text("{")
    assert read_history(tmp_path) == [{"step": 2, "grad_norm": None}]
