"""Writing over a run loses nothing before the new one has something to show."""

import atexit
import errno
import fcntl
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from run_folders import SETTINGS, changed, checkpoint, finished_run, save_settings, tree
from safetensors.torch import save_file

from trl_hybrid.errors import InputError
from trl_hybrid.runs import overwrite
from trl_hybrid.runs.overwrite import check_not_under_way, check_overwrite, hold, let_go, set_aside, settle


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run, `runs/a` below the working folder."""
    monkeypatch.chdir(tmp_path)
    return finished_run(Path("runs/a"))


class Killed(BaseException):
    """The end of a process, at a moment that the test chooses."""


def killed_at(monkeypatch, call, action):
    """Do something and die before the n-th change of the disk; return whether it came to that."""
    left = [call]

    def dying(original):
        def change(*args, **kwargs):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return original(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        for name in ("rename", "unlink", "rmdir", "mkdir"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        try:
            action()
        except Killed:
            return True
    return False


def begin_new_run(folder):
    """What a run has written before its first checkpoint."""
    save_settings(folder, changed(lora_r=4))
    (folder / "history.jsonl").write_text('{"step": 1}\n')
    (folder / "completions").mkdir(exist_ok=True)
    (folder / "completions" / "completions_00001.parquet").write_text("of the second run")
    checkpoint(folder, 1, whole=False)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("setting", "place"),
        [
            ("model_name_or_path", "runs/a"),
            ("model_name_or_path", "runs/a/checkpoint-4"),
            ("model_name_or_path", "runs/../runs/a/merged"),
            ("reward_model_name_or_path", "runs/a"),
            ("dataset_name", "runs/a/samples.jsonl"),
            ("dataset_name", "runs/a/completions"),
            ("dataset_name", "runs/a/accuracy_before.json"),
        ],
    )
    @pytest.mark.parametrize("output_dir", ["runs/a", "runs/linked"])
    def test_what_the_run_reads_out_of_what_is_cleared(self, run, setting, place, output_dir):
        (run / "merged").mkdir()
        (run / "samples.jsonl").write_text("{}")
        Path("runs/linked").symlink_to("a")
        before = tree(run)
        with pytest.raises(InputError, match=f"{setting} '{place}' is in the run of '.*runs/"):
            check_overwrite(Path(output_dir), changed(**{setting: place}))
        assert tree(run) == before

    def test_a_part_of_a_mixture_and_a_cold_start_s_answers(self, run):
        (run / "samples.jsonl").write_text("{}")
        mixture = {**SETTINGS, "tasks": {"datasets": [{"path": "openai/gsm8k"}, {"path": "runs/a/samples.jsonl"}]}}
        with pytest.raises(InputError, match=r"path 'runs/a/samples\.jsonl'"):
            check_overwrite(run, mixture)
        with pytest.raises(InputError, match=r"samples 'runs/a/samples\.jsonl'"):
            check_overwrite(run, {**SETTINGS, "sampling": {"samples": "runs/a/samples.jsonl"}})

    def test_the_base_of_an_adapter_and_weights_behind_a_link(self, run):
        Path("adapter").mkdir()
        Path("adapter/adapter_config.json").write_text('{"base_model_name_or_path": "runs/a/checkpoint-2"}')
        with pytest.raises(InputError, match="base_model_name_or_path of adapter 'runs/a/checkpoint-2'"):
            check_overwrite(run, changed(model_name_or_path="adapter"))
        Path("linked").mkdir()
        Path("linked/model.safetensors").symlink_to(run.resolve() / "adapter_model.safetensors")
        with pytest.raises(InputError, match="model_name_or_path 'linked' is in the run"):
            check_overwrite(run, changed(model_name_or_path="linked"))

    def test_what_lies_beside_it_or_is_the_user_s_may_be_read(self, run):
        Path("runs/a/mine.jsonl").write_text("{}")
        Path("runs/ab").mkdir()
        for name in ("runs/a/mine.jsonl", "runs/ab", "runs", "openai/gsm8k"):
            check_overwrite(run, changed(dataset_name=name))

    @pytest.mark.parametrize("settings", [None, '{"settings": 1}', "no JSON", "[1]"])
    def test_a_folder_that_no_run_made(self, tmp_path, settings):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        if settings:
            (folder / "settings.json").write_text(settings)
        with pytest.raises(InputError, match=r"model' holds files but no settings\.json"):
            check_overwrite(folder, SETTINGS)

    def test_a_run_of_which_the_summary_is_left_may_be_written_over(self, run):
        (run / "settings.json").unlink()
        (run / "summary.json").write_text(
            '{"settings": {"training": {"seed": 1}}, "versions": {"trl": "1.16.0"}, "steps": 6}'
        )
        check_overwrite(run, SETTINGS)

    def test_nothing_to_write_over(self, tmp_path):
        check_overwrite(tmp_path / "none", SETTINGS)
        (tmp_path / "begun" / "completions").mkdir(parents=True)  # by a trainer that did not train
        check_overwrite(tmp_path / "begun", SETTINGS)


class TestSettingAside:
    def test_the_earlier_run_is_gone_with_the_first_whole_checkpoint(self, run):
        set_aside(run)
        assert {path.name for path in run.iterdir()} == {".previous", "notes.txt"}
        begin_new_run(run)
        (run / "checkpoint-1" / "trainer_state.json").write_text('{"global_step": 1}')
        settle(run)
        assert {path.name for path in run.iterdir()} == {
            "notes.txt", "settings.json", "history.jsonl", "completions", "checkpoint-1",
        }  # fmt: skip

    def test_a_deletion_that_fails_is_made_up_for_by_a_later_start(self, run, monkeypatch):
        set_aside(run)
        checkpoint(run, 1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "rmdir", lambda *given, **more: (_ for _ in ()).throw(OSError(errno.EBUSY, "busy")))
            settle(run)
            settle(run)
        assert {path.name for path in run.iterdir()} == {"notes.txt", "checkpoint-1", ".previous.discarded"}
        settle(run)
        assert {path.name for path in run.iterdir()} == {"notes.txt", "checkpoint-1"}

    def test_what_another_process_removes_meanwhile_is_no_obstacle(self, run, monkeypatch):
        before, listed = tree(run), overwrite.of_a_run
        set_aside(run)
        monkeypatch.setattr(overwrite, "of_a_run", lambda folder: [*listed(folder), folder / "gone.safetensors"])
        settle(run)
        assert tree(run) == before

    def test_the_end_of_the_process_settles_it_wherever_the_process_is_then(self, run, monkeypatch):
        before, folder, at_the_end = tree(run), run.resolve(), []
        monkeypatch.setattr(atexit, "register", lambda *call: at_the_end.append(call))
        set_aside(run)
        assert tree(run) != before
        monkeypatch.chdir("/")
        for function, *given in at_the_end:
            function(*given)
        assert tree(folder) == before

    def test_what_a_killed_deletion_left_is_not_in_the_way(self, run):
        (run / ".previous.discarded").mkdir()
        (run / ".previous.discarded" / "optimizer.pt").write_text("of the run before that")
        set_aside(run)
        checkpoint(run, 1)
        settle(run)
        assert {path.name for path in run.iterdir()} == {"notes.txt", "checkpoint-1"}

    def test_it_is_gone_with_a_whole_model_and_not_with_a_cut_off_one(self, run):
        before = tree(run)
        set_aside(run)
        begin_new_run(run)
        save_file({"weight": torch.zeros(2)}, run / "adapter_model.safetensors")
        settle(run)
        assert tree(run) == before  # the trainer saves its arguments last
        set_aside(run)
        save_file({"weight": torch.zeros(2)}, run / "adapter_model.safetensors")
        (run / "training_args.bin").write_text("")
        settle(run)
        assert {path.name for path in run.iterdir()} == {
            "notes.txt", "adapter_model.safetensors", "training_args.bin",
        }  # fmt: skip

    def test_a_save_that_is_not_whole_undoes_nothing_while_the_new_run_lasts(self, run):
        set_aside(run)
        begin_new_run(run)
        (run / "checkpoint-1" / "trainer_state.json").write_text('{"global_step": 1}')
        (run / "checkpoint-1" / "adapter_model.safetensors").unlink()  # its weights are sharded
        during = tree(run)
        let_go(run)
        assert tree(run) == during
        checkpoint(run, 2)
        let_go(run)
        assert {path.name for path in run.iterdir()} == {
            "notes.txt", "settings.json", "history.jsonl", "completions", "checkpoint-1", "checkpoint-2",
        }  # fmt: skip

    def test_it_is_back_when_the_new_one_leaves_nothing(self, run, caplog):
        before = tree(run)
        set_aside(run)
        begin_new_run(run)
        settle(run)
        assert tree(run) == before
        assert caplog.messages[-1].startswith(f"The run that was in {run} before is back")

    def test_a_cold_start_s_answers_are_kept_and_so_is_the_run_before_them(self, run, caplog):
        before = tree(run)
        set_aside(run)
        (run / "samples.jsonl").write_text("answers")
        settle(run)
        assert caplog.messages[-1].startswith(f"The run that was in {run} before lies in {run / '.previous'} until")
        assert (run / "samples.jsonl").read_text() == "answers"
        assert len(tree(run / ".previous")) == len(before) - 1
        set_aside(run)  # sampled anew
        assert not (run / "samples.jsonl").exists()
        settle(run)
        assert tree(run) == before

    @pytest.mark.parametrize("new_run", ["none", "begun", "checkpoint"])
    def test_an_interruption_at_any_point_is_mended_by_the_next_start(self, run, monkeypatch, new_run):
        """Killed while it is set aside, put back or let go; the next start finds one run or the other, whole."""

        def whole_story():
            set_aside(run)
            if new_run != "none":
                begin_new_run(run)
            if new_run == "checkpoint":
                (run / "checkpoint-1" / "trainer_state.json").write_text('{"global_step": 1}')
            settle(run)

        before, original, call = tree(run), Path(shutil.copytree(run, "original")), 0
        while True:
            died = killed_at(monkeypatch, call, whole_story)
            while killed_at(monkeypatch, 1, lambda: settle(run)):
                pass  # killed in each start after one change, too
            found = tree(run)
            new = json.loads(found["settings.json"])["settings"]["model"]["lora_r"] == 4
            if new:
                assert new_run == "checkpoint"
                assert "checkpoint-1/trainer_state.json" in found
                assert not any("checkpoint-2" in name for name in found)
            else:
                assert found == before
            if not died:
                assert new is (new_run == "checkpoint")
                break
            shutil.rmtree(run)
            shutil.copytree(original, run)
            call += 1
        assert call > len(list(original.iterdir()))


@pytest.fixture
def held(monkeypatch):
    """The folders in which this process runs: none yet."""
    folders = {}
    monkeypatch.setattr(overwrite, "HELD", folders)
    yield folders
    for handle in folders.values():
        os.close(handle)


class TestTwoAtOnce:
    def test_a_folder_in_which_another_process_runs_is_refused(self, run, held, monkeypatch):
        hold(run)
        hold(run)  # its own is no other's
        check_not_under_way(run)
        with monkeypatch.context() as patch:
            patch.setattr(overwrite, "HELD", {})  # as another process sees it
            for look in (hold, check_not_under_way, set_aside):
                with pytest.raises(InputError, match=r"A run in '.*runs/a' is under way"):
                    look(run)
        os.close(held.pop(run.resolve()))  # as at the process's end
        check_not_under_way(run)
        hold(run)

    def test_looking_holds_nothing_and_two_may_look_at_once(self, run, held):
        looking = os.open(run, os.O_RDONLY)
        fcntl.flock(looking, fcntl.LOCK_SH)
        check_not_under_way(run)
        os.close(looking)
        hold(run)
        check_not_under_way(run / "none")

    @pytest.mark.usefixtures("held")
    def test_where_a_file_system_has_no_locks_runs_start_all_the_same(self, run, monkeypatch, caplog):
        error = OSError(errno.ENOLCK, "No locks available")

        def no_locks(handle, kind):
            raise error

        monkeypatch.setattr(fcntl, "flock", no_locks)
        with caplog.at_level(logging.DEBUG):
            hold(run)
        assert caplog.messages == [f"The file system of {run} has no locks: {error}"]
        check_not_under_way(run)
