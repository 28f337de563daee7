"""A resumed run equals an unbroken one, and a run that is told to stop saves first."""

import fcntl
import json
import os
import random
import re
import resource
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback, TrainerState
from trl.trainer.utils import RepeatSampler

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, RewardModel
from trl_hybrid.errors import InputError
from trl_hybrid.recipe.endings import plain_ends
from trl_hybrid.recipe.folder import RunStart
from trl_hybrid.runs.folder import checkpoint_to_resume, judges_state, newest_whole_checkpoint
from trl_hybrid.training.checkpoint import (
    JudgesState,
    OrderOfTheEpoch,
    SaveBetweenGenerations,
    TrainsToTheLastStep,
    check_save_strategy,
    checkpoint_folder,
    load_state,
    replay_shuffles,
    save_state,
    warn_of_inexact_resume,
)
from trl_hybrid.training.held_out_accuracy import HeldOutAccuracy
from trl_hybrid.training.stop_signals import Stopped, StopSignals


class Parity:
    """Right is what has an odd sum of its characters: any policy is right about half of the time."""

    __name__ = "math_verifier"

    def __call__(self, completions, **kwargs):
        return [float(sum(map(ord, c[0]["content"])) % 2) for c in completions]


def tasks(rows):
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": f"What is {13 * i % 90} + {29 * i % 70}?"}] for i in range(rows)],
            "solution": ["4"] * rows,
        }
    )


def make_trainer(folder, rows=6, streamed=False, **changes):
    settings = {
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 8,
        "max_steps": 8,
        "save_steps": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "hybrid_bounds": "calibrated",
        "hybrid_calibration_prompts": 2,
        "gradient_checkpointing": False,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return HybridGRPOTrainer(
        "data/embedded_policy",
        args=HybridGRPOConfig(str(folder), **{**settings, **changes}),
        train_dataset=tasks(rows).to_iterable_dataset() if streamed else tasks(rows),
        verifier=Parity(),
        reward_model=RewardModel("data/embedded_reward_model", device="cpu"),
    )


class StopAt(TrainerCallback):
    """As a user who interrupts after a step's save."""

    def __init__(self, step):
        self.step = step

    def on_save(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


TIMED = ("step_time", "time/", "train_runtime", "train_samples_per_second", "train_steps_per_second")


def learned(trainer):
    """The weights, and everything logged but times and the closing summary."""
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    history = [
        {k: v for k, v in row.items() if not k.startswith(TIMED)} for row in trainer.state.log_history if "loss" in row
    ]
    return weights, history


def assert_same(first, second):
    assert len(first[1]) == len(second[1])
    assert first[1] == second[1]
    assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])


def stop_and_go_on(folder, stop_at, checkpoint, **changes):
    trainer = make_trainer(folder, **changes)
    trainer.add_callback(StopAt(stop_at))
    trainer.train()
    assert trainer.state.global_step == stop_at
    assert newest_whole_checkpoint(folder) == folder / checkpoint
    resumed = make_trainer(folder, **changes)
    resumed.train(resume_from_checkpoint=str(folder / checkpoint))
    return trainer, resumed


class TestExactResume:
    def test_four_and_four_steps_equal_eight(self, tmp_path, caplog):
        unbroken = make_trainer(tmp_path / "unbroken")
        unbroken.train()
        stopped, resumed = stop_and_go_on(tmp_path / "broken", 4, "checkpoint-4")
        assert_same(learned(resumed), learned(unbroken))
        assert not re.search("save_only_model|start anew|generated anew|reference model", caplog.text)

        # The comparison says something: each of these moves, and none is found again from its start.
        assert resumed.judgement.state_dict() == unbroken.judgement.state_dict()
        assert resumed.judgement.weight.steps == resumed.judgement.drift.seen == 8
        assert len(resumed.judgement.alarm.state_dict()["steps"]) == 8
        assert resumed.judgement.bounds.value == stopped.judgement.bounds.value
        sigma = [row["hybrid/sigma_bar"] for row in unbroken.state.log_history if "loss" in row]
        assert len(set(sigma)) == 8
        assert any(0.0 < row["hybrid/pass_rate"] < 1.0 for row in unbroken.state.log_history if "loss" in row)

    def test_bounds_are_not_calibrated_again(self, tmp_path, monkeypatch):
        trainer = make_trainer(tmp_path, max_steps=1)
        trainer.train()
        monkeypatch.setattr(
            "trl_hybrid.training.trainer.calibration_scores", lambda *_: pytest.fail("calibrated again")
        )
        resumed = make_trainer(tmp_path, max_steps=2)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
        low, high = resumed.judgement.bounds.value
        assert (low, high) == trainer.judgement.bounds.value
        logged = [(row["hybrid/rm_min"], row["hybrid/rm_max"]) for row in resumed.state.log_history if "loss" in row]
        assert logged == [(low, high)] * 2

    @pytest.mark.parametrize(
        "changes",
        [
            {"steps_per_generation": 2},
            {"num_iterations": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        ],
        ids=["two steps of one generation", "two passes over one generation"],
    )
    def test_a_save_within_a_generation_moves_to_its_end(self, tmp_path, changes):
        unbroken = make_trainer(tmp_path / "unbroken", save_steps=3, **changes)
        unbroken.train()
        # 3 is within the generation of steps 3 and 4; 6 is the end of one; 8 is the last step.
        saved = {folder.name for folder in (tmp_path / "unbroken").glob("checkpoint-*")}
        assert saved == {"checkpoint-4", "checkpoint-6", "checkpoint-8"}
        _, resumed = stop_and_go_on(tmp_path / "broken", 4, "checkpoint-4", save_steps=3, **changes)
        assert_same(learned(resumed), learned(unbroken))

    def test_save_at_an_epochs_end_is_exact_too(self, tmp_path):
        # 6 problems, 2 a step: 3 steps an epoch.
        changes = {"save_strategy": "epoch", "max_steps": 6}
        unbroken = make_trainer(tmp_path / "unbroken", **changes)
        unbroken.train()
        _, resumed = stop_and_go_on(tmp_path / "broken", 3, "checkpoint-3", **changes)
        assert_same(learned(resumed), learned(unbroken))

    def test_a_reference_model_that_moves_travels_along(self, tmp_path):
        changes = {"beta": 0.04, "sync_ref_model": True, "ref_model_sync_steps": 3, "max_steps": 6}
        unbroken = make_trainer(tmp_path / "unbroken", **changes)
        unbroken.train()
        stopped, resumed = stop_and_go_on(tmp_path / "broken", 4, "checkpoint-4", **changes)
        assert_same(learned(resumed), learned(unbroken))
        kl = [row["kl"] for row in learned(resumed)[1]]
        assert kl[0] == 0.0 < kl[4]
        # The synchronisation after step 3 had moved it away from where a new run starts.
        start = make_trainer(tmp_path / "new", **changes).ref_model.state_dict()
        assert not all(torch.equal(start[name], value) for name, value in stopped.ref_model.state_dict().items())

    def test_a_checkpoint_without_the_reference_model_says_so(self, tmp_path, caplog):
        changes = {"beta": 0.04, "sync_ref_model": True, "ref_model_sync_steps": 1}
        make_trainer(tmp_path, max_steps=1, **changes).train()
        (tmp_path / "checkpoint-1" / "reference_model.safetensors").unlink()
        make_trainer(tmp_path, max_steps=2, **changes).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
        assert f"{tmp_path / 'checkpoint-1'} does not hold the reference model" in caplog.text

    def test_a_checkpoint_of_the_model_only_is_said_to_be_inexact_at_the_start_and_on_resume(self, tmp_path, caplog):
        make_trainer(tmp_path, max_steps=1, save_only_model=True).train()
        assert "save_only_model: checkpoints hold no optimizer" in caplog.text
        caplog.clear()
        resumed = make_trainer(tmp_path, max_steps=2)
        assert "save_only_model" not in caplog.text
        resumed.train(resume_from_checkpoint=checkpoint_to_resume("latest", tmp_path))
        assert f"{tmp_path / 'checkpoint-1'} has no optimizer.pt (save_only_model)" in caplog.text
        assert resumed.state.global_step == 2

    @pytest.mark.parametrize("stop_at", [2, 4])
    def test_a_streamed_set_is_exact_within_its_first_pass_and_says_so_after_it(self, tmp_path, caplog, stop_at):
        # 6 problems, 2 a step: the first pass ends with step 3.
        changes = {"save_steps": stop_at, "max_steps": 6, "streamed": True}
        unbroken = make_trainer(tmp_path / "unbroken", **changes)
        unbroken.train()
        _, resumed = stop_and_go_on(tmp_path / "broken", stop_at, f"checkpoint-{stop_at}", **changes)
        assert resumed.state.global_step == 6
        if stop_at == 2:
            assert_same(learned(resumed), learned(unbroken))
        assert ("streamed and was past its first pass (epoch 1)" in caplog.text) is (stop_at == 4)

    def test_a_run_stopped_within_a_generation_goes_on_in_step_with_the_others_and_says_so(self, tmp_path, caplog):
        changes = {"steps_per_generation": 4, "num_generations": 4, "per_device_train_batch_size": 4}
        make_trainer(tmp_path, max_steps=6, **changes).train()
        assert judges_state(tmp_path / "checkpoint-6")["generation_step"] == 2
        resumed = make_trainer(tmp_path, max_steps=8, **changes)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
        assert f"{tmp_path / 'checkpoint-6'} was saved within a generation" in caplog.text
        assert resumed.generation_step == 0

    def test_a_checkpoint_without_the_judges_state_starts_it_anew_and_says_so(self, tmp_path, caplog):
        make_trainer(tmp_path, max_steps=1).train()
        file = tmp_path / "checkpoint-1" / "trainer_state.json"
        state = json.loads(file.read_text())
        del state["stateful_callbacks"]["hybrid_judges"]  # as a `GRPOTrainer` saves
        file.write_text(json.dumps(state))
        resumed = make_trainer(tmp_path, max_steps=2)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
        assert f"{tmp_path / 'checkpoint-1'} knows no judges: their running figures start anew" in caplog.text
        assert resumed.judgement.weight.steps == 1

    def test_remembered_scores_travel_along(self, tmp_path):
        trainer = make_trainer(tmp_path, max_steps=1)
        trainer.train()
        resumed = make_trainer(tmp_path, max_steps=2)
        assert len(resumed.reward_model.cache) == 0
        load_state(resumed, tmp_path / "checkpoint-1")
        assert resumed.reward_model.state_dict() == trainer.reward_model.state_dict()
        assert len(resumed.reward_model.cache) > 0


class TestAShardedReferenceModel:
    """Under ZeRO-3 and FSDP no process holds the reference model, which no checkpoint then does."""

    @pytest.fixture(params=["zero3", "fsdp"])
    def trainer(self, tmp_path, request):
        trainer = make_trainer(tmp_path, beta=0.04, sync_ref_model=True)
        if request.param == "zero3":
            next(trainer.ref_model.parameters()).ds_id = 0  # as DeepSpeed marks it
        else:
            trainer.is_fsdp_enabled = True
        return trainer

    def test_is_not_saved_nor_loaded_and_both_are_said(self, tmp_path, trainer, caplog):
        warn_of_inexact_resume(trainer)
        assert "sync_ref_model: checkpoints do not hold the reference model where it is sharded" in caplog.text
        save_state(trainer, tmp_path)
        assert not (tmp_path / "reference_model.safetensors").exists()
        (tmp_path / "reference_model.safetensors").write_bytes(b"another run's")
        load_state(trainer, tmp_path)
        assert "does not hold the reference model" in caplog.text

    def test_a_whole_one_is_saved_and_loaded_and_nothing_is_said(self, tmp_path, caplog):
        trainer = make_trainer(tmp_path, beta=0.04, sync_ref_model=True)
        weight = next(trainer.ref_model.parameters())
        moved = weight.data + 1.0
        weight.data = moved.clone()
        save_state(trainer, tmp_path)
        weight.data = moved - 1.0
        load_state(trainer, tmp_path)
        assert torch.equal(weight, moved)
        assert "reference model" not in caplog.text

    def test_one_that_stays_as_it_was_loaded_is_not_saved(self, tmp_path, caplog):
        trainer = make_trainer(tmp_path, beta=0.04)
        save_state(trainer, tmp_path)
        assert not (tmp_path / "reference_model.safetensors").exists()
        load_state(trainer, tmp_path)
        assert "reference model" not in caplog.text


class TestWhatACheckpointOfTheModelOnlyLacks:
    @pytest.mark.parametrize(
        ("save_only_model", "strategy", "deepspeed", "said"),
        [
            (True, "steps", False, ["goes on otherwise than an unbroken one."]),
            (True, "epoch", True, ["goes on otherwise than an unbroken one, and DeepSpeed refuses to."]),
            (True, "no", False, []),
            (False, "steps", True, []),
        ],
    )
    def test_is_said_before_training(self, tmp_path, caplog, save_only_model, strategy, deepspeed, said):
        trainer = make_trainer(tmp_path, save_only_model=False, save_strategy=strategy)
        trainer.args.save_only_model, trainer.is_deepspeed_enabled = save_only_model, deepspeed
        warn_of_inexact_resume(trainer)
        assert re.findall(r"goes on otherwise.*?\.", caplog.text) == said
        assert "sync_ref_model" not in caplog.text

    @pytest.mark.parametrize("deepspeed", [True, False])
    def test_is_not_asked_of_deepspeed_which_keeps_its_own(self, tmp_path, caplog, deepspeed):
        trainer = make_trainer(tmp_path)
        trainer.is_deepspeed_enabled = deepspeed
        save_state(trainer, tmp_path)
        load_state(trainer, tmp_path)
        assert ("has no optimizer.pt" in caplog.text) is not deepspeed


def test_a_reward_model_without_a_state_goes_without(tmp_path):
    """A plain function has none to save, and takes none that a reward model before it has left."""
    trainer = make_trainer(tmp_path)
    trainer.reward_model = len
    save_state(trainer, tmp_path)
    assert not list(tmp_path.glob("reward_model_state_*"))
    (tmp_path / "reward_model_state_0.json").write_text('{"model": "another"}')
    judges = {"judgement": {}, "generation_step": 0}
    (tmp_path / "trainer_state.json").write_text(json.dumps({"stateful_callbacks": {"hybrid_judges": judges}}))
    load_state(trainer, tmp_path)


def test_each_process_keeps_its_own_scores(tmp_path):
    for rank in (0, 1):
        trainer: Any = SimpleNamespace(
            args=SimpleNamespace(should_save=False),
            reward_model=SimpleNamespace(state_dict=lambda rank=rank: {"rank": rank}),
            accelerator=SimpleNamespace(process_index=rank, wait_for_everyone=lambda: None),
        )
        save_state(trainer, tmp_path)
    found = {file.name: json.loads(file.read_text()) for file in tmp_path.iterdir()}
    assert found == {f"reward_model_state_{rank}.json": {"rank": rank} for rank in (0, 1)}


class TestWhereARunGoesOnFrom:
    def test_is_the_folder_that_transformers_finds(self, tmp_path):
        for step in (2, 10):
            (tmp_path / f"checkpoint-{step}").mkdir()
        assert checkpoint_folder(True, str(tmp_path)) == tmp_path / "checkpoint-10"
        assert checkpoint_folder(str(tmp_path / "checkpoint-2"), str(tmp_path)) == tmp_path / "checkpoint-2"

    @pytest.mark.parametrize("resume", [None, False, True])
    def test_is_nowhere_where_nothing_is_asked_for_or_found(self, tmp_path, resume):
        assert checkpoint_folder(resume, str(tmp_path)) is None
        (tmp_path / "checkpoint-2").mkdir()
        assert checkpoint_folder(resume, None) is None
        assert (checkpoint_folder(resume, str(tmp_path)) is not None) is (resume is True)


def test_a_checkpoint_of_a_folder_that_is_not_there_yet_makes_both(tmp_path):
    save_state(make_trainer(tmp_path), tmp_path / "run-3" / "checkpoint-1")
    assert (tmp_path / "run-3" / "checkpoint-1" / "reward_model_state_0.json").exists()


class TestReplayedShuffles:
    def test_the_next_epoch_has_the_order_of_an_unbroken_run(self, caplog):
        unbroken, resumed = (RepeatSampler(range(50), mini_repeat_count=1, seed=3) for _ in range(2))
        epochs = [list(unbroken) for _ in range(3)]
        replay_shuffles(resumed, epochs=2)
        assert list(resumed) == epochs[2]
        assert epochs[2] not in epochs[:2]
        assert caplog.text == ""

    def test_an_order_that_stays_needs_none(self, caplog):
        replay_shuffles(RepeatSampler(range(5), mini_repeat_count=1, shuffle=False), epochs=2)
        assert caplog.text == ""


class TestOrderOfThePrompts:
    @pytest.mark.parametrize("processes", [1, 2])
    def test_a_resumed_epoch_has_its_own_order_also_where_processes_share_the_batches(self, processes):
        def loader():
            sampler = RepeatSampler(range(6), mini_repeat_count=2, batch_size=1, seed=5)
            plain = DataLoader(range(6), batch_size=2, sampler=sampler)
            return prepare_data_loader(plain, num_processes=processes, process_index=processes - 1)

        unbroken, resumed = loader(), loader()
        orders = [torch.cat(list(unbroken)).tolist() for _ in range(3)]
        assert orders[0] != orders[1] != orders[2] != orders[0]
        callback = JudgesState(SimpleNamespace())
        state = SimpleNamespace(global_step=13, max_steps=20, epoch=2.1)
        callback.on_train_begin(None, state, None, train_dataloader=resumed)
        assert torch.cat(list(resumed)).tolist() == orders[2]

    @pytest.mark.parametrize(("epoch", "said"), [(0.5, False), (1.5, True)])
    def test_a_stream_has_no_order_to_go_back_to_which_is_said_past_its_first_pass(self, caplog, epoch, said):
        state = SimpleNamespace(global_step=3, max_steps=20, epoch=epoch)
        callback = JudgesState(SimpleNamespace())
        callback.on_train_begin(None, state, None, train_dataloader=SimpleNamespace(batch_sampler=None))
        assert ("its prompts come in another order than in an unbroken run" in caplog.text) is said


class OrderOfItsOwn(Sampler):
    """Draws an order for each epoch."""

    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(random.Random(self.epoch).sample(range(24), 24))

    def __len__(self):
        return 24


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_an_epoch_that_goes_on_has_its_own_order_also_where_processes_share_the_batches(processes):
    def loader():
        plain = DataLoader(list(range(24)), batch_size=2, sampler=OrderOfItsOwn())
        return prepare_data_loader(plain, num_processes=processes, process_index=0)

    def batches(loader):
        loader.set_epoch(1)  # as transformers does
        return [batch.tolist() for batch in loader]

    whole, resumed = loader(), loader()
    for each, epoch in ((whole, 1.0), (resumed, 1.5)):
        OrderOfTheEpoch().on_epoch_begin(None, TrainerState(epoch=epoch), None, train_dataloader=each)
    assert batches(skip_first_batches(resumed, 2)) == batches(whole)[2:]


def test_a_stream_has_no_order_to_be_told_of():
    OrderOfTheEpoch().on_epoch_begin(
        None, TrainerState(epoch=1.0), None, train_dataloader=SimpleNamespace(batch_sampler=None)
    )


class TestSaveBetweenGenerations:
    def saved(self, best_at_end):
        """Which of nine steps save, of three steps a generation, when every second save is asked for."""
        trainer = SimpleNamespace(generation_step=0)
        callback, steps = SaveBetweenGenerations(trainer), []
        for step in range(1, 10):
            trainer.generation_step = step % 3
            control = SimpleNamespace(should_save=step % 2 == 0, should_training_stop=False)
            callback.on_step_end(SimpleNamespace(load_best_model_at_end=best_at_end), None, control)
            steps += [step] if control.should_save else []
        return steps

    def test_each_save_waits_for_the_end_of_its_generation(self):
        assert self.saved(best_at_end=False) == [3, 6, 9]

    def test_so_does_one_that_an_epochs_end_asks_for(self):
        trainer = SimpleNamespace(generation_step=1)
        callback, args = SaveBetweenGenerations(trainer), SimpleNamespace(load_best_model_at_end=False)
        control = SimpleNamespace(should_save=True, should_training_stop=False)
        callback.on_epoch_end(args, None, control)
        assert not control.should_save
        trainer.generation_step = 0
        callback.on_step_end(args, None, control)
        assert control.should_save

    def test_nothing_is_saved_that_nobody_asks_for(self):
        callback, args = SaveBetweenGenerations(SimpleNamespace(generation_step=0)), HybridGRPOConfig(use_cpu=True)
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        callback.on_step_end(args, None, control)
        assert not control.should_save

    def test_saves_stay_with_their_evaluation_where_the_best_model_is_looked_for(self):
        assert self.saved(best_at_end=True) == [2, 4, 6, 8]


class TestWholeCheckpoints:
    @pytest.mark.parametrize("part", ["_save_optimizer_and_scheduler", "_save_rng_state", "_save"])
    def test_a_save_that_breaks_off_does_not_count(self, tmp_path, part):
        trainer = make_trainer(tmp_path, save_steps=1, max_steps=2)
        original = getattr(trainer, part)

        def break_off(*args, **kwargs):
            if trainer.state.global_step == 2:
                raise OSError("disk full")
            return original(*args, **kwargs)

        setattr(trainer, part, break_off)
        with pytest.raises(OSError, match="disk full"):
            trainer.train()
        assert (tmp_path / "checkpoint-2").is_dir()
        assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-1"

    def test_nor_does_one_that_was_being_written_over_a_whole_one(self, tmp_path):
        make_trainer(tmp_path, save_steps=1, max_steps=2).train()
        assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
        trainer = make_trainer(tmp_path, save_steps=1, max_steps=2)

        def break_off(*args, **kwargs):
            raise OSError("disk full")

        trainer._save_optimizer_and_scheduler = break_off
        with pytest.raises(OSError, match="disk full"):
            trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
        assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-1"


class TestAfterTheLastStep:
    @pytest.mark.parametrize(("step", "batches"), [(6, [(1, "cpu")]), (7, []), (8, [])])
    def test_no_batch_is_taken(self, step, batches):
        class Plain:
            def get_batch_samples(self, *args):
                return [args], 5

        class ToTheLastStep(TrainsToTheLastStep, Plain):
            state = SimpleNamespace(global_step=step, max_steps=7)
            control = SimpleNamespace(should_training_stop=False)

        trainer = ToTheLastStep()
        assert trainer.get_batch_samples(1, "cpu") == (batches, 5 if batches else None)
        assert trainer.control.should_training_stop is (batches == [])

    def test_a_run_that_was_trained_to_its_end_is_not_trained_further(self, tmp_path):
        # 4 is within the second epoch, where the trainer itself would go one step past it.
        trained = make_trainer(tmp_path, max_steps=4, log_completions=True)
        trained.train()
        table = (tmp_path / "completions" / "completions_00004.parquet").read_bytes()
        before = (tmp_path / "checkpoint-4" / "trainer_state.json").stat().st_mtime_ns
        resumed = make_trainer(tmp_path, max_steps=4, log_completions=True)
        resumed.train(resume_from_checkpoint=checkpoint_to_resume("latest", tmp_path, max_steps=4))
        assert resumed.state.global_step == 4
        assert_same(learned(resumed), learned(trained))
        assert (tmp_path / "checkpoint-4" / "trainer_state.json").stat().st_mtime_ns == before
        assert (tmp_path / "completions" / "completions_00004.parquet").read_bytes() == table

    def test_one_whose_summary_is_written_is_refused(self, tmp_path):
        make_trainer(tmp_path, max_steps=1).train()
        (tmp_path / "summary.json").write_text('{"steps": 1}')
        with pytest.raises(InputError, match="has reached step 1 and max_steps is 1"):
            checkpoint_to_resume("latest", tmp_path, max_steps=1)
        assert checkpoint_to_resume("latest", tmp_path, max_steps=2) == str(tmp_path / "checkpoint-1")


def test_keeping_the_best_checkpoint_is_refused_where_nothing_looks_for_it(tmp_path):
    args = HybridGRPOConfig(str(tmp_path), save_strategy="best", metric_for_best_model="reward", use_cpu=True)
    with pytest.raises(InputError, match=r"save_strategy 'best'.*Set save_strategy to steps"):
        check_save_strategy(args)
    check_save_strategy(HybridGRPOConfig(str(tmp_path), use_cpu=True))


class TestPlainEnds:
    @pytest.fixture
    def full(self):
        """No file may grow beyond 4 kB: the system refuses the write itself, as it does on a full disk."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    @pytest.mark.parametrize("part", ["save_model", "_save_optimizer_and_scheduler", "_save_rng_state"])
    def test_a_checkpoint_that_does_not_fit_ends_the_run_plainly_and_the_one_before_counts(
        self, tmp_path, capsys, full, part
    ):
        trainer = make_trainer(tmp_path, save_steps=1, max_steps=3)
        original = getattr(trainer, part)

        def fill(*args, **kwargs):
            if trainer.state.global_step == 2:
                full()
            return original(*args, **kwargs)

        setattr(trainer, part, fill)
        with pytest.raises(SystemExit) as left, plain_ends(tmp_path, trainer):
            trainer.train()
        assert left.value.code == 2
        said = capsys.readouterr().err
        assert "error: What a run makes is written into its folder, but at step 2" in said
        assert "File too large" in said or "was cut off" in said
        assert f"To go on, add: --output_dir {tmp_path} --resume_from_checkpoint latest" in said
        assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-1"

    def test_a_folder_that_another_process_took_ends_the_run_plainly(self, tmp_path, capsys):
        trainer = make_trainer(tmp_path, max_steps=1)
        trainer.add_callback(RunStart(tmp_path, {}, checkpoint=None, overwrite=False))
        other = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_EX)  # another handle's, as another process's
        with pytest.raises(SystemExit) as left, plain_ends(tmp_path, trainer):
            trainer.train()
        os.close(other)
        assert left.value.code == 2
        assert re.search(r"error: .*" + re.escape(str(tmp_path)), capsys.readouterr().err)
        assert not (tmp_path / "settings.json").exists()

    def test_other_errors_keep_their_trace(self, tmp_path):
        trainer: Any = SimpleNamespace(state=SimpleNamespace(global_step=3))
        with pytest.raises(ConnectionResetError), plain_ends(tmp_path, trainer):
            raise ConnectionResetError(104, "Connection reset by peer")
        with pytest.raises(RuntimeError, match="lost its nerve"), plain_ends(tmp_path, trainer):
            raise RuntimeError("lost its nerve")


class SignalAt(TrainerCallback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step, number=signal.SIGTERM):
        self.step, self.number = step, number

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def heard():
    """Signals as at a terminal: a background job, as these tests may be in, is started with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
class TestSignals:
    @pytest.mark.parametrize(
        ("number", "status", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
    )
    def test_saves_at_the_steps_end_and_leaves(self, tmp_path, capfd, number, status, name):
        before = signal.getsignal(number)
        trainer = make_trainer(tmp_path, save_strategy="no")
        trainer.add_callback(SignalAt(3, number))
        with pytest.raises(SystemExit) as left, plain_ends(tmp_path, trainer), StopSignals(trainer):
            trainer.train()
        assert left.value.code == status
        assert trainer.state.global_step == 3
        assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
        assert signal.getsignal(number) is before
        shown = capfd.readouterr()
        assert f"{name}: the run saves at the end of this step and stops" in shown.err
        assert "Interrupted at step 3." in shown.out
        assert "--resume_from_checkpoint latest" in shown.out

    def test_a_second_ctrl_c_stops_on_the_spot(self, tmp_path):
        trainer = make_trainer(tmp_path, save_strategy="no")
        trainer.add_callback(SignalAt(3, signal.SIGINT))
        trainer.add_callback(SignalAt(3, signal.SIGINT))
        with pytest.raises(SystemExit) as left, plain_ends(tmp_path, trainer), StopSignals(trainer):
            trainer.train()
        assert left.value.code == 130
        assert trainer.state.global_step == 2
        assert newest_whole_checkpoint(tmp_path) is None

    def test_a_background_job_goes_on_ignoring_ctrl_c(self, tmp_path):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        trainer = make_trainer(tmp_path, max_steps=2, save_strategy="no")
        trainer.add_callback(SignalAt(1, signal.SIGINT))
        with StopSignals(trainer):
            trainer.train()
        assert trainer.state.global_step == 2
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    def test_the_run_goes_on_as_if_nothing_had_happened(self, tmp_path):
        unbroken = make_trainer(tmp_path / "unbroken", max_steps=5)
        unbroken.train()
        trainer = make_trainer(tmp_path / "broken", max_steps=5)
        trainer.add_callback(SignalAt(3))
        with pytest.raises(Stopped), StopSignals(trainer):
            trainer.train()
        resumed = make_trainer(tmp_path / "broken", max_steps=5)
        resumed.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-3"))
        assert_same(learned(resumed), learned(unbroken))

    def test_saves_also_where_only_the_best_checkpoint_is_kept(self, tmp_path):
        trainer = make_trainer(tmp_path, save_strategy="best", metric_for_best_model="reward", max_steps=3)
        trainer.eval_dataset, trainer.args.eval_strategy, trainer.args.eval_steps = tasks(2), "steps", 1
        trainer._determine_best_metric = lambda metrics, trial: False
        trainer.add_callback(SignalAt(2))
        with pytest.raises(Stopped), StopSignals(trainer):
            trainer.train()
        assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-2"

    def test_without_a_signal_nothing_changes(self, tmp_path):
        trainer = make_trainer(tmp_path, max_steps=1, save_strategy="no")
        with StopSignals(trainer):
            trainer.train()
        assert trainer.state.global_step == 1
        assert not list(tmp_path.glob("checkpoint-*"))


class TellsToStop:
    """Judges answers, and sends this process a signal while it judges its n-th batch."""

    def __init__(self, batch):
        self.batch, self.batches = batch, 0

    def verify_batch(self, completions, solutions, prompts, truncated):
        self.batches += 1
        if self.batches == self.batch:
            os.kill(os.getpid(), signal.SIGTERM)
        return [SimpleNamespace(correct=True) for _ in completions]


class TestSignalsWhileMeasuring:
    """Four problems, one a batch: a measurement is four batches."""

    def run(self, folder, tell_in_batch, checkpoint=None, every=None):
        trainer = make_trainer(folder, save_strategy="no", max_steps=3, per_device_eval_batch_size=1)
        stop, verifier = StopSignals(trainer), TellsToStop(tell_in_batch)
        judge: Any = verifier
        held_out = HeldOutAccuracy(trainer, tasks(4), judge, folder, checkpoint, num_samples=1, every=every, stop=stop)
        trainer.add_callback(held_out)
        code = None
        try:
            with stop:
                trainer.train(resume_from_checkpoint=checkpoint)
        except Stopped as stopped:
            code = stopped.code
        return SimpleNamespace(trainer=trainer, held_out=held_out, code=code, batches=verifier.batches)

    def test_before_training_there_is_nothing_to_save(self, tmp_path):
        # Two problems a batch of the judge: one problem's greedy and sampled answer make one batch.
        run = self.run(tmp_path, tell_in_batch=1)
        assert (run.code, run.batches, run.trainer.state.global_step) == (143, 1, 0)
        assert newest_whole_checkpoint(tmp_path) is None
        assert not (tmp_path / "accuracy_before.json").exists()

    def test_in_between_the_step_is_saved(self, tmp_path):
        run = self.run(tmp_path, tell_in_batch=4 + 2, every=2)
        assert (run.code, run.batches, run.trainer.state.global_step) == (143, 6, 2)
        assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
        logged = [row["step"] for row in run.trainer.state.log_history if "eval_accuracy_greedy" in row]
        assert logged == [0]

    def test_after_training_the_last_step_is_saved_and_resuming_finishes_the_run(self, tmp_path):
        run = self.run(tmp_path, tell_in_batch=4 + 2)
        assert (run.code, run.batches, run.trainer.state.global_step) == (143, 6, 3)
        assert run.held_out.figures() == {}
        assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
        checkpoint = checkpoint_to_resume("latest", tmp_path, max_steps=3)
        again = self.run(tmp_path, tell_in_batch=0, checkpoint=checkpoint)
        assert (again.code, again.batches, again.trainer.state.global_step) == (None, 4, 3)
        unchanged = {"before": 1.0, "after": 1.0, "change": 0.0, "low": 0.0, "high": 0.0}
        assert again.held_out.figures()["greedy"] == unchanged
        assert_same(learned(again.trainer), learned(run.trainer))
