"""The warm-up: what is answered and scored, how, and that nothing else notices it."""

import asyncio
import random
import threading
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from trl_hybrid.training.calibration import Calibrate, calibration_scores, call_size


class Accelerator:
    """One of several processes; what it gathers is its own share alone."""

    device = torch.device("cpu")

    def __init__(self, process=0, processes=1):
        self.process_index, self.num_processes = process, processes
        self.is_main_process = process == 0

    def gather(self, own):
        return own


class Trainer:
    """What calibration asks of a trainer; each answer is the number of its prompt, and so is its score."""

    tools: Any = None
    async_loop: Any = None

    def __init__(self, prompts=4, group=2, batch=8, accelerator=None, disturb=lambda: None):
        self.train_dataset = [{"prompt": f"P{i}", "solution": f"S{i}", "level": i} for i in range(prompts)]
        self.num_generations, self.accelerator, self.disturb = group, accelerator or Accelerator(), disturb
        self.args = SimpleNamespace(generation_batch_size=batch, disable_tqdm=True)
        self.model = torch.nn.Dropout().eval()
        self.state = SimpleNamespace(num_input_tokens_seen=17)
        self._metrics = {"train": defaultdict(list, {"reward": [1.0]})}
        self.modes, self.calls = [], []

    def _generate(self, prompts):
        self.modes.append(self.model.training)
        self._metrics["train"]["reward"].append(2.0)
        self._metrics["train"]["completions/mean_length"] = [3.0]
        self.state.num_input_tokens_seen += 100
        self.disturb()
        ids = [[int(prompt[1:]), 2] for prompt in prompts]
        return [[0]] * len(prompts), ids, None, [f"answer {prompt}" for prompt in prompts], None

    def cut_off(self, completion_ids):
        return [ids[0] == 1 for ids in completion_ids]

    def reward_model(self, prompts, completions, **kwargs):
        self.calls.append(SimpleNamespace(prompts=prompts, completions=completions, **kwargs))
        return [None if prompt == "P3" else float(prompt[1:]) for prompt in prompts]


def test_each_of_the_first_prompts_is_answered_by_a_whole_group_and_none_is_nan():
    trainer = Trainer(prompts=5)
    scores = calibration_scores(trainer, 4)
    assert scores.dtype == torch.float32
    assert scores.nan_to_num(-1.0).tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, -1.0, -1.0]


def test_the_reward_model_is_asked_as_in_training():
    trainer = Trainer()
    calibration_scores(trainer, 2)
    (call,) = trainer.calls
    assert call.prompts == ["P0", "P0", "P1", "P1"]
    assert call.completions == ["answer P0", "answer P0", "answer P1", "answer P1"]
    assert call.completion_ids == [[0, 2], [0, 2], [1, 2], [1, 2]]
    assert call.completion_truncated == [False, False, True, True]
    assert (call.solution, call.level) == (["S0", "S0", "S1", "S1"], [0, 0, 1, 1])
    assert not hasattr(call, "prompt")
    assert call.trainer_state is trainer.state
    call.log_extra("column", ["a"])
    call.log_metric("metric", 1.0)


def test_scores_become_single_precision_on_the_accelerators_device_also_whole_numbers_and_one_alone():
    class Elsewhere(Accelerator):
        device = torch.device("meta")

        def gather(self, own):
            found.append((own.device.type, own.dtype))
            return torch.zeros(len(own))

    found = []
    trainer = Trainer(group=1, accelerator=Elsewhere())
    trainer.reward_model = lambda prompts, **_: [1] * len(prompts)
    assert calibration_scores(trainer, 1).tolist() == [0.0]
    assert found == [("meta", torch.float32)]


def test_a_dataset_of_fewer_prompts_is_answered_whole():
    assert len(calibration_scores(Trainer(prompts=3), 10)) == 6


def test_calls_are_no_larger_than_a_training_batch_and_the_last_starts_again_with_the_first_prompts():
    trainer = Trainer(prompts=5, group=2, batch=4)
    assert calibration_scores(trainer, 5).nan_to_num(3.0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [call.prompts[::2] for call in trainer.calls] == [["P0", "P1"], ["P2", "P3"], ["P4", "P0"]]


def test_processes_share_each_call_and_all_make_as_many():
    """5 prompts of 2 answers on two processes, at most 8 answers a call: two calls of 6, a share of 3 each."""
    asked = {}
    for process in (0, 1):
        trainer = Trainer(prompts=5, batch=8, accelerator=Accelerator(process, 2))
        calibration_scores(trainer, 5)
        asked[process] = [call.prompts for call in trainer.calls]
    assert asked[0] == [["P0", "P0", "P1"], ["P3", "P3", "P4"]]
    assert asked[1] == [["P1", "P2", "P2"], ["P4", "P0", "P0"]]


@pytest.mark.parametrize(
    ("total", "group", "processes", "largest", "size"),
    [(8, 8, 1, 64, 8), (64, 8, 1, 64, 64), (72, 8, 1, 64, 40), (80, 8, 2, 64, 40), (80, 8, 3, 48, 48)],
)
def test_calls_are_as_few_and_as_equal_as_can_be(total, group, processes, largest, size):
    assert call_size(total, group, processes, largest) == size


@pytest.mark.parametrize("training", [True, False])
def test_answers_are_given_in_training_mode_as_in_training_and_the_mode_is_then_what_it_was(training):
    trainer = Trainer()
    trainer.model.train(training)
    calibration_scores(trainer, 2)
    assert trainer.modes == [True]
    assert trainer.model.training is training


def states():
    _, key, position, *_ = np.random.get_state()
    return random.getstate(), (key.tolist(), position), torch.get_rng_state().tolist()


def test_random_states_are_what_they_were_though_answers_draw_from_all_three():
    def draw():
        random.random(), np.random.random(), torch.rand(1)

    before = states()
    draw()
    assert all(one != other for one, other in zip(before, states(), strict=True))
    before = states()
    calibration_scores(Trainer(disturb=draw), 2)
    assert states() == before


def test_logs_and_the_count_of_tokens_are_what_they_were_even_after_a_failure():
    def fail():
        random.random()
        raise RuntimeError("no server")

    for trainer in (Trainer(), Trainer(disturb=fail)):
        before = states()
        if trainer.disturb is fail:
            with pytest.raises(RuntimeError, match="no server"):
                calibration_scores(trainer, 2)
        else:
            calibration_scores(trainer, 2)
        assert trainer._metrics == {"train": {"reward": [1.0]}}
        assert trainer.state.num_input_tokens_seen == 17
        assert not trainer.model.training
        assert states() == before


def test_an_asynchronous_reward_model_is_awaited_in_the_trainers_loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    trainer = Trainer()

    async def score(prompts, **kwargs):
        assert asyncio.get_running_loop() is loop
        return [7.0] * len(prompts)

    trainer.reward_model, trainer.async_loop = score, loop
    try:
        assert calibration_scores(trainer, 1).tolist() == [7.0, 7.0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("name", ["tools", "environment_factories"])
def test_tools_and_environments_are_refused(name):
    trainer = Trainer()
    setattr(trainer, name, [len])
    with pytest.raises(ValueError, match="without tools and outside of any environment"):
        calibration_scores(trainer, 2)


def test_no_prompts_are_refused():
    with pytest.raises(ValueError, match=r"hybrid_calibration_prompts = 3 prompts .* it has none"):
        calibration_scores(Trainer(prompts=0), 3)


def test_the_bar_counts_answers_on_the_main_process_alone(capsys):
    for process, shown in ((0, True), (1, False)):
        trainer = Trainer(prompts=5, batch=8, accelerator=Accelerator(process, 2))
        trainer.args.disable_tqdm = False
        calibration_scores(trainer, 5)
        printed = capsys.readouterr().err
        assert ("Calibrating the scores' bounds: 100%" in printed and "10/10" in printed) is shown


def test_the_callback_lets_the_trainer_calibrate_before_the_first_step():
    calibrated = []
    Calibrate(SimpleNamespace(calibrate=lambda: calibrated.append(1))).on_train_begin(None, None, None)
    assert calibrated == [1]
