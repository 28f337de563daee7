"""What a recipe's `with` block does: plain errors before training, traces in it, an end that loses nothing."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from trl import ModelConfig, SFTConfig

from trl_hybrid.errors import InputError
from trl_hybrid.recipe.answering import AnsweringRun
from trl_hybrid.recipe.grpo import GRPORun
from trl_hybrid.recipe.options import TaskArguments
from trl_hybrid.recipe.reward_model import RewardModelRun
from trl_hybrid.recipe.run import adapter_config
from trl_hybrid.recipe.sft import SFTRun


class Trainer:
    """As much of a trainer as a run touches when training or saving fails at once."""

    state = SimpleNamespace(global_step=3)

    def __init__(self, error):
        self.error = error
        self.callbacks = []

    def add_callback(self, callback):
        self.callbacks.append(type(callback).__name__)

    def remove_callback(self, callback):
        if not isinstance(callback, type):
            self.callbacks.remove(type(callback).__name__)

    def is_world_process_zero(self):
        return True

    def train(self, resume_from_checkpoint):
        raise self.error

    def save_model(self):
        raise self.error


@pytest.fixture(params=[GRPORun, SFTRun, RewardModelRun])
def run(request, tmp_path):
    run = request.param()
    run.folder, run.checkpoint, run.options, run.tasks = tmp_path, None, {}, TaskArguments()
    run.test_tasks, run.args = None, SimpleNamespace(device=torch.device("cuda"))
    return run


def test_what_a_user_can_mend_is_one_message_before_training_and_the_rest_passes_in_it(run, capsys, monkeypatch):
    monkeypatch.delenv("TRL_HYBRID_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop, run:
        raise InputError("dataset_name must be there.")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "\nerror: dataset_name must be there.\n"

    trainer = Trainer(ValueError("a fault in training"))
    with pytest.raises(ValueError, match="a fault in training"), run:
        run.train(trainer)
    assert trainer.callbacks == ["StepLines", "OrderOfTheEpoch", "RunStart", "RunHistory"]  # training is over
    assert capsys.readouterr().err == ""


def test_an_interruption_while_saving_leaves_no_summary_of_other_weights(run, capsys):
    (run.folder / "summary.json").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        run.save(Trainer(KeyboardInterrupt()))
    assert stop.value.code == 130
    assert not (run.folder / "summary.json").exists()
    way_on = "--resume_from_checkpoint latest" if isinstance(run, AnsweringRun) else "There is no checkpoint yet"
    said = capsys.readouterr().out
    assert "Interrupted at step 3." in said
    assert way_on in said


def test_where_the_run_lies_is_said_before_anything_is_loaded(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    run.named, run.model, run.args = None, ModelConfig(), SFTConfig(run_name="mine", use_cpu=True)
    run._open_folder()
    assert run.folder == Path("runs/mine-2")
    assert "Everything that this run makes lies in runs/mine-2." in capsys.readouterr().out


def test_a_folder_that_may_be_written_over_need_not_be_there(run, tmp_path):
    run.named, run.model = tmp_path / "new" / "run", ModelConfig()
    run.args = SFTConfig(run_name="mine", use_cpu=True)
    run.tasks.overwrite_output_dir = True
    run._open_folder(before_training=True)
    assert run.folder.is_dir()


def test_an_adapter_names_the_revision_of_its_base():
    assert adapter_config(ModelConfig("some/model", model_revision="v1", use_peft=True)).revision == "v1"
    assert adapter_config(ModelConfig("some/model")) is None
