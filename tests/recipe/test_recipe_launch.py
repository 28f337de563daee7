"""What recipes do around training: one folder for all processes, and how the policy is loaded."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from run_folders import SETTINGS, changed, checkpoint, finished_run, save_settings, tree
from torch import nn
from transformers import Trainer, TrainingArguments
from trl import ModelConfig

from trl_hybrid.errors import InputError
from trl_hybrid.recipe.endings import what_is_left
from trl_hybrid.recipe.folder import RunStart, check_folder, prepare_folder, set_learning_rate
from trl_hybrid.recipe.loading import loading_arguments
from trl_hybrid.runs.folder import newest_whole_checkpoint
from trl_hybrid.runs.history import read_history
from trl_hybrid.runs.history_writer import RunHistory


REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def args(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return TrainingArguments("trainer_output", run_name="mine", report_to="none", use_cpu=True)


def test_without_a_name_the_run_gets_a_folder_of_its_own(args, tmp_path):
    assert check_folder(args, False, SETTINGS) == (None, None)
    assert str(prepare_folder(None, args)) == args.output_dir == "runs/mine"
    assert (tmp_path / "runs/mine").is_dir()
    assert str(prepare_folder(None, args)) == "runs/mine-2"


def test_a_named_folder_is_changed_only_when_asked_and_then_set_aside(args, tmp_path):
    folder = finished_run(tmp_path / "named")
    before = tree(folder)
    args.output_dir = str(folder)
    with pytest.raises(InputError, match="is not empty"):
        check_folder(args, False, SETTINGS)
    args.resume_from_checkpoint = "false"
    with pytest.raises(InputError, match="is not empty"):
        check_folder(args, False, SETTINGS)
    with pytest.raises(InputError, match="model_name_or_path"):
        check_folder(args, True, changed(model_name_or_path=str(folder)))
    assert check_folder(args, True, SETTINGS) == (folder, None)
    prepare_folder(folder, args)
    assert tree(folder) == before
    assert str(prepare_folder(folder, args, clear=True)) == args.output_dir
    assert {path.name for path in folder.iterdir()} == {".previous", "notes.txt"}


SETS_ASIDE = """
import os, sys
from pathlib import Path
from trl_hybrid.runs.overwrite import set_aside
set_aside(Path(sys.argv[1]))
print("aside", flush=True)
if input() == "die":
    os._exit(9)
"""


def test_a_process_that_ends_puts_the_run_back_and_one_that_is_killed_leaves_that_to_the_next_start(args, tmp_path):
    before = tree(finished_run(tmp_path / "named"))
    started = [subprocess.Popen(
        [sys.executable, "-c", SETS_ASIDE, str(finished_run(tmp_path / name))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    ) for name in ("ends", "dies")]  # fmt: skip
    for process, word, set_aside in zip(started, ("end", "die"), (False, True), strict=True):
        folder = Path(process.args[-1])
        args.output_dir = str(folder)
        assert process.stdout.readline() == "aside\n"
        with pytest.raises(InputError, match="is under way"):
            check_folder(args, True, SETTINGS)
        process.communicate(f"{word}\n")
        assert (folder / ".previous").exists() is set_aside
        with pytest.raises(InputError, match="is not empty"):
            check_folder(args, False, SETTINGS)
        assert tree(folder) == before


def test_a_run_goes_on_in_its_own_folder_or_a_new_one(args, tmp_path):
    for name in ("a", "b"):
        save_settings(tmp_path / name)
    found = str(checkpoint(tmp_path / "a", 2))
    args.resume_from_checkpoint = found
    for name in ("a", "c"):
        args.output_dir = str(tmp_path / name)
        assert check_folder(args, False, SETTINGS) == (tmp_path / name, found)
    args.output_dir = str(tmp_path / "b")
    with pytest.raises(InputError, match=r"two runs would be mixed.*--output_dir .*/a, or a new folder"):
        check_folder(args, False, SETTINGS)


def test_a_run_that_goes_on_says_what_changed_and_refuses_what_does_not_fit(args, tmp_path, capsys):
    save_settings(tmp_path)
    found = str(checkpoint(tmp_path, 2))
    before = tree(tmp_path)
    args.output_dir, args.resume_from_checkpoint = str(tmp_path), "latest"
    assert check_folder(args, False, SETTINGS) == (tmp_path, found)
    assert capsys.readouterr().out == ""
    assert check_folder(args, False, changed(max_steps=8, num_generations=4)) == (tmp_path, found)
    assert capsys.readouterr().out.splitlines()[1:] == ["  num_generations: 8 -> 4", "  max_steps: 6 -> 8"]
    with pytest.raises(InputError, match="lora_r: 16 -> 8"):
        check_folder(args, False, changed(lora_r=8))
    assert tree(tmp_path) == before


class Regression(nn.Module):
    """One weight that learns that y is x."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, labels):
        return {"loss": ((self.weight * x - labels) ** 2).mean()}


def train(folder, settings, checkpoint=None, overwrite=False, stop_at=None, **more):
    """Train for `max_steps`, saving after each; die in the step after `stop_at`."""
    wanted = settings["training"]
    args = TrainingArguments(
        str(folder), max_steps=wanted["max_steps"], learning_rate=wanted["learning_rate"], save_steps=1,
        logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True, per_device_train_batch_size=1,
        **more,
    )  # fmt: skip

    class Failing(Trainer):
        def training_step(self, *inputs, **more):
            if self.state.global_step == stop_at:
                raise MemoryError
            return super().training_step(*inputs, **more)

    rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 8
    trainer = Failing(Regression(), args, train_dataset=rows, callbacks=[])
    trainer.add_callback(RunStart(folder, settings, checkpoint, overwrite))
    trainer.add_callback(RunHistory(folder))
    trainer.train(resume_from_checkpoint=checkpoint)


def rates(folder):
    return {row["step"]: row["learning_rate"] for row in read_history(folder) if "learning_rate" in row}


def lock(folder):
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)


class TestRunStart:
    def test_the_folder_is_touched_when_training_begins(self, tmp_path):
        folder = finished_run(tmp_path / "run", steps=2)
        before = tree(folder)
        RunStart(folder, SETTINGS, None, overwrite=True)
        assert tree(folder) == before
        with pytest.raises(MemoryError):
            train(folder, changed(max_steps=3), overwrite=True, stop_at=0)
        assert json.loads((folder / "settings.json").read_text())["settings"]["training"]["max_steps"] == 3
        aside = {name.removeprefix(".previous/"): content for name, content in tree(folder).items()}
        assert {name: aside[name] for name in before if name not in ("settings.json", "history.jsonl")} == {
            name: content for name, content in before.items() if name not in ("settings.json", "history.jsonl")
        }
        with pytest.raises(MemoryError):
            train(folder, changed(max_steps=3), overwrite=True, stop_at=1)
        assert not (folder / ".previous").exists()
        assert newest_whole_checkpoint(folder).name == "checkpoint-1"

    def test_a_run_under_way_holds_its_folder_whatever_it_began_with(self, args, tmp_path, monkeypatch):
        args.output_dir = str(tmp_path / "run")
        train(tmp_path / "run", changed(max_steps=1))
        with pytest.raises(BlockingIOError):
            lock(tmp_path / "run")  # as another process would
        monkeypatch.setattr("trl_hybrid.runs.overwrite.HELD", {})  # as another process sees it
        for args.resume_from_checkpoint, overwrite in ((None, True), ("latest", False)):
            with pytest.raises(InputError, match="is under way"):
                check_folder(args, overwrite, SETTINGS)

    def test_going_back_leaves_the_later_line_and_the_new_learning_rate_holds(self, tmp_path):
        folder = tmp_path / "run"
        train(folder, changed(max_steps=4, learning_rate=0.4))
        assert rates(folder) == pytest.approx({1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1})
        found = str(folder / "checkpoint-2")
        with pytest.raises(MemoryError):
            train(folder, changed(max_steps=4, learning_rate=0.8), checkpoint=found, stop_at=3)
        assert rates(folder) == pytest.approx({1: 0.4, 2: 0.3, 3: 0.4})
        assert newest_whole_checkpoint(folder).name == "checkpoint-3"
        assert newest_whole_checkpoint(folder / "abandoned" / "after-2").name == "checkpoint-4"
        written = json.loads((folder / "settings.json").read_text())
        assert written["settings"]["training"]["learning_rate"] == 0.8
        assert written["changes"] == [{"step": 2, "settings": {"learning_rate": [0.4, 0.8]}}]

        train(folder, changed(max_steps=4, learning_rate=0.8), checkpoint=str(folder / "checkpoint-3"))
        assert rates(folder) == pytest.approx({1: 0.4, 2: 0.3, 3: 0.4, 4: 0.2})
        assert json.loads((folder / "settings.json").read_text())["changes"] == written["changes"]

        train(folder, changed(max_steps=4, learning_rate=0.2), checkpoint=found)
        assert rates(folder) == pytest.approx({1: 0.4, 2: 0.3, 3: 0.1, 4: 0.05})
        changes = json.loads((folder / "settings.json").read_text())["changes"]
        assert changes == [{"step": 2, "settings": {"learning_rate": [0.4, 0.2]}}]

    def test_an_optimizer_that_starts_anew_has_the_new_learning_rate_as_it_is(self, tmp_path):
        folder = tmp_path / "run"
        train(folder, changed(max_steps=4, learning_rate=0.4), save_only_model=True)
        found = str(folder / "checkpoint-2")
        train(folder, changed(max_steps=4, learning_rate=0.8), checkpoint=found, save_only_model=True)
        assert rates(folder) == pytest.approx({1: 0.4, 2: 0.3, 3: 0.8, 4: 0.6})  # its schedule starts anew, too


def test_another_learning_rate_is_not_that_of_parameters_with_their_own():
    body, bias, head = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    optimizer = torch.optim.SGD([{"params": [body]}, {"params": [bias]}, {"params": [head], "lr": 0.5}], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 4)
    optimizer.step()
    schedule.step()
    set_learning_rate(optimizer, schedule, 0.2)
    assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    assert schedule.get_last_lr() == pytest.approx([0.15, 0.15, 0.375])
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.1, 0.1, 0.25])


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_real_run_is_written_over_gone_back_in_and_never_lost(tmp_path):
    folder = tmp_path / "run"
    options = ["--config", "recipes/configs/embedded.yaml", "--max_test_rows", "0", "--save_steps", "2",
               "--per_device_train_batch_size", "32", "--output_dir", str(folder)]  # fmt: skip

    def start(*more, script=("recipes/tinyllama_grpo.py",), code=0):
        command = [sys.executable, *script, *options, *more]
        result = subprocess.run(command, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)
        assert result.returncode == code, result.stderr
        return result

    start("--max_steps", "4")
    before = tree(folder)
    start("--lora_target_modules", "nonsense", "--overwrite_output_dir", code=2)
    assert tree(folder) == before
    start("--overwrite_output_dir", script=("tests/launch/killed.py", "step", "1"), code=-signal.SIGKILL)
    assert (folder / ".previous" / "checkpoint-4").is_dir()
    refused = start("--resume_from_checkpoint", "latest", "--lora_r", "8", "--max_steps", "6", code=2).stderr
    assert "is back" in refused
    assert "lora_r: 16 -> 8" in refused
    assert tree(folder) == before

    back = ("--resume_from_checkpoint", str(folder / "checkpoint-2"), "--reward_mode", "verifier", "--max_steps")
    shown = start(*back, "3").stdout
    assert "reward_mode: 'hybrid' -> 'verifier'" in shown
    assert "abandoned/after-2: checkpoint-4, 2 tables of completions, the saved model" in shown
    assert newest_whole_checkpoint(folder).name == "checkpoint-3"
    kept = tree(folder / "abandoned" / "after-2")
    assert kept == {name: before[name] for name in kept}
    assert {name for name in before if name.startswith("checkpoint-4/")} < set(kept)

    several = ("-m", "accelerate.commands.launch", "--quiet", "--num_processes", "2", "--num_machines", "1",
               "--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
               "--num_cpu_threads_per_process", "1", "recipes/tinyllama_grpo.py")  # fmt: skip
    start("--max_steps", "1", "--save_strategy", "no", "--overwrite_output_dir", script=several)
    assert not list(folder.glob("checkpoint-*"))
    assert not {".previous", "abandoned"} & {path.name for path in folder.iterdir()}
    assert (folder / "adapter_model.safetensors").read_bytes() != before["adapter_model.safetensors"]


def test_what_is_left_names_the_way_on(tmp_path):
    assert what_is_left(tmp_path).endswith(f"--output_dir {tmp_path} --overwrite_output_dir")
    for step in (2, 4):
        checkpoint(tmp_path, step)
    assert what_is_left(tmp_path).endswith(f"--output_dir {tmp_path} --resume_from_checkpoint latest")
    (tmp_path / "summary.json").write_text('{"steps": 2}')  # of the run before it went on
    assert what_is_left(tmp_path).endswith("--resume_from_checkpoint latest")
    (tmp_path / "summary.json").write_text('{"steps": 4}')
    assert what_is_left(tmp_path).startswith("Training is done and the model is saved.")


def test_only_safetensors_are_read_and_own_arguments_go_over_the_model_s():
    model = ModelConfig("some/model", model_revision="v1", dtype="float32")
    found = loading_arguments(SimpleNamespace(model_init_kwargs={"dtype": "bfloat16"}), model)
    assert found == {
        "revision": "v1", "attn_implementation": None, "dtype": "bfloat16", "use_safetensors": True,
    }  # fmt: skip
    assert loading_arguments(SimpleNamespace(model_init_kwargs=None), model)["dtype"] == "float32"
    with pytest.raises(InputError, match="use_safetensors False"):
        loading_arguments(SimpleNamespace(model_init_kwargs={"use_safetensors": False}), model)


def test_a_policy_with_pickled_weights_alone_is_refused(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained("data/embedded_policy")
    model.config.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained("data/embedded_policy").save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    kwargs = loading_arguments(SimpleNamespace(model_init_kwargs=None), ModelConfig())
    with pytest.raises(OSError, match="safetensors"):
        AutoModelForCausalLM.from_pretrained(tmp_path, **kwargs)
