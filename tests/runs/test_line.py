"""After going back to an earlier checkpoint, what came after it is kept and is no longer the run."""

import json
from pathlib import Path

import pytest
from run_folders import checkpoint, finished_run, tree

from trl_hybrid.runs.folder import newest_whole_checkpoint
from trl_hybrid.runs.history import read_history
from trl_hybrid.runs.line import finish_going_back, leave_behind


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of six steps, saved at 2, 4 and 6."""
    monkeypatch.chdir(tmp_path)
    return finished_run(Path("runs/a"))


def test_later_checkpoints_tables_and_model_are_kept_elsewhere_and_said(run):
    before = tree(run)
    said = leave_behind(run, 2)
    assert said is not None
    assert "runs/a/abandoned/after-2: checkpoint-4, checkpoint-6, 4 tables of completions, the saved model" in said
    assert newest_whole_checkpoint(run).name == "checkpoint-2"
    assert {path.name for path in run.iterdir()} == {
        "abandoned", "accuracy_before.json", "checkpoint-2", "completions", "history.jsonl", "notes.txt",
        "settings.json",
    }  # fmt: skip
    assert len(list((run / "completions").iterdir())) == 2

    kept = run / "abandoned" / "after-2"
    assert newest_whole_checkpoint(kept).name == "checkpoint-6"
    assert [row["step"] for row in read_history(kept)] == [1, 2, 3, 4, 5, 6]
    moved = {name.removeprefix("abandoned/after-2/"): content for name, content in tree(run).items()}
    assert moved == before


def test_the_newest_line_goes_on_where_it_was_left(run):
    leave_behind(run, 2)
    checkpoint(run, 3)
    assert newest_whole_checkpoint(run).name == "checkpoint-3"
    assert leave_behind(run, 3) is None
    assert leave_behind(run, 2) is not None
    assert {path.name for path in (run / "abandoned").iterdir()} == {"after-2", "after-2-2"}
    assert newest_whole_checkpoint(run / "abandoned" / "after-2-2").name == "checkpoint-3"


def test_a_finished_run_that_goes_on_leaves_nothing_behind(run):
    before = tree(run)
    assert leave_behind(run, 6) is None
    (run / "completions" / "completions_00007.parquet").write_text("killed in step 8")
    checkpoint(run, 8, whole=False)
    said = leave_behind(run, 6)
    assert said is not None
    assert said.endswith("runs/a/abandoned/after-6: 1 table of completions.")
    (run / "checkpoint-8").rename("cut off")
    assert {name: content for name, content in tree(run).items() if not name.startswith("abandoned")} == before


@pytest.mark.parametrize(("steps", "stays"), [(2, True), (6, False), (None, False)])
def test_a_model_saved_later_or_nobody_knows_when_is_left_behind(run, steps, stays):
    if steps is None:
        (run / "summary.json").unlink()
    else:
        (run / "summary.json").write_text(json.dumps({"steps": steps}))
    leave_behind(run, 2)
    assert (run / "adapter_model.safetensors").exists() is stays


@pytest.mark.parametrize("renames", range(12))
def test_latest_is_the_newest_line_wherever_it_is_interrupted(run, monkeypatch, renames):
    class Killed(BaseException):
        pass

    rename, left = Path.rename, [renames]

    def dying(path, target):
        if path.name.endswith(".part"):  # the mark itself, whole or not there
            return path.replace(target)
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        try:
            leave_behind(run, 2)
        except Killed:
            assert newest_whole_checkpoint(run).name == "checkpoint-2"
    finish_going_back(run)
    assert newest_whole_checkpoint(run).name == "checkpoint-2"
    assert newest_whole_checkpoint(run / "abandoned" / "after-2").name == "checkpoint-6"
    assert not (run / ".going_back.json").exists()
    checkpoint(run, 4)
    assert newest_whole_checkpoint(run).name == "checkpoint-4"


def test_what_is_left_behind_is_said_in_the_order_of_its_steps_and_counted(run):
    checkpoint(run, 10)
    said = leave_behind(run, 4)
    assert said is not None
    assert said.endswith("/after-4: checkpoint-6, checkpoint-10, 2 tables of completions, the saved model.")
    checkpoint(run, 12)
    said = leave_behind(run, 4)
    assert said is not None
    assert said.endswith("/after-4-2: checkpoint-12.")
