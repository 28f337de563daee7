"""No run is written over unasked, and only whole checkpoints are resumed."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file

from trl_hybrid.errors import InputError
from trl_hybrid.runs.folder import (
    check_run_folder,
    checkpoint_to_resume,
    claim_run_folder,
    newest_whole_checkpoint,
    relative_path,
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def checkpoint(folder, step, whole=True):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weight": torch.ones(4, 4)}, path / "adapter_model.safetensors")
    if whole:
        (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


class TestChoosing:
    def test_unnamed_runs_get_a_new_folder_each_also_when_they_start_at_once(self):
        with ThreadPoolExecutor(8) as threads:
            folders = list(threads.map(claim_run_folder, ["embedded"] * 8))
        names = ["runs/embedded", *(f"runs/embedded-{number}" for number in range(2, 9))]
        assert sorted(map(str, folders)) == sorted(names)
        assert check_run_folder(None) is None

    def test_named_folder_with_files_is_refused_unless_asked(self, tmp_path):
        (tmp_path / "mine").mkdir()
        assert check_run_folder("mine").name == "mine"
        (tmp_path / "mine" / "notes.txt").write_text("keep me")
        with pytest.raises(InputError, match=r"'mine' is not empty.*overwrite_output_dir"):
            check_run_folder("mine")
        assert check_run_folder("mine", resume=True).name == "mine"
        assert check_run_folder("mine", overwrite=True).name == "mine"

    def test_a_trainer_that_was_built_and_did_not_train_leaves_an_empty_folder(self, tmp_path):
        (tmp_path / "mine" / "completions").mkdir(parents=True)
        assert check_run_folder("mine").name == "mine"

    def test_file_in_the_folders_place(self, tmp_path):
        (tmp_path / "mine").write_text("")
        with pytest.raises(InputError, match="must be a folder"):
            check_run_folder("mine")

    def test_resume_needs_a_folder(self):
        with pytest.raises(InputError, match="output_dir"):
            check_run_folder(None, resume=True)


class TestResuming:
    def test_newest_whole_checkpoint_by_number(self, tmp_path):
        for step in (5, 10, 100):
            checkpoint(tmp_path, step)
        assert newest_whole_checkpoint(tmp_path).name == "checkpoint-100"

    @pytest.mark.parametrize("damage", ["no state", "half a state", "cut weights", "no weights", "cut optimizer"])
    def test_damaged_one_is_passed_over_with_a_warning(self, tmp_path, caplog, damage):
        checkpoint(tmp_path, 5)
        newest = checkpoint(tmp_path, 10)
        weights, state = newest / "adapter_model.safetensors", newest / "trainer_state.json"
        optimizer = newest / "global_step10" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"  # as DeepSpeed has it
        optimizer.parent.mkdir()
        torch.save({"exp_avg": torch.ones(4)}, optimizer)
        assert newest_whole_checkpoint(tmp_path) == newest
        {
            "cut optimizer": lambda: optimizer.write_bytes(optimizer.read_bytes()[:-8]),
            "no state": state.unlink,
            "half a state": lambda: state.write_text('{"global_st'),
            "cut weights": lambda: weights.write_bytes(weights.read_bytes()[:-8]),
            "no weights": weights.unlink,
        }[damage]()
        assert newest_whole_checkpoint(tmp_path).name == "checkpoint-5"
        assert "checkpoint-10" in caplog.text

    def test_users_words(self, tmp_path):
        path = checkpoint(tmp_path, 5)
        assert checkpoint_to_resume(None, tmp_path) is None
        assert checkpoint_to_resume("False", tmp_path) is None
        assert checkpoint_to_resume("latest", tmp_path) == str(path)
        assert checkpoint_to_resume("True", tmp_path) == str(path)
        assert checkpoint_to_resume(str(path), tmp_path) == str(path)

    def test_finished_run_is_not_trained_past_its_end(self, tmp_path):
        path = checkpoint(tmp_path, 5)
        assert checkpoint_to_resume("latest", tmp_path, max_steps=6) == str(path)
        assert checkpoint_to_resume("latest", tmp_path, max_steps=-1) == str(path)
        with pytest.raises(InputError, match="reached step 5 and max_steps is 4"):
            checkpoint_to_resume("latest", tmp_path, max_steps=4)

    @pytest.mark.parametrize("resume", ["latest", "checkpoint-7"])
    def test_nothing_to_resume(self, tmp_path, resume):
        with pytest.raises(InputError, match="no whole checkpoint"):
            checkpoint_to_resume(resume, tmp_path)


def test_only_a_folder_that_is_there_is_written_over(tmp_path):
    with pytest.raises(InputError, match="add --overwrite_output_dir"):
        checkpoint_to_resume("latest", tmp_path)
    with pytest.raises(InputError, match="which is no folder") as error:
        checkpoint_to_resume("latest", tmp_path / "none")
    assert "overwrite" not in str(error.value)


def test_paths_below_the_working_folder_are_relative(tmp_path):
    (tmp_path / "data").mkdir()
    assert relative_path(str(tmp_path / "data")) == "data"
    assert relative_path("openai/gsm8k") == "openai/gsm8k"
    assert relative_path("/") == "/"
