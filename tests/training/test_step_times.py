"""A step's wall time is shared out to its parts, and to one part each."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from trl_hybrid.training import step_times
from trl_hybrid.training.step_times import StepTimes


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(step_times.time, "perf_counter", lambda: now.seconds)
    return now


@pytest.fixture
def times():
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cpu")), _metrics={"train": defaultdict(list)}
    )
    return StepTimes(trainer)


def generate_and_judge(times, clock, generation, judging):
    with times.measure("generation"):
        clock.seconds += generation / 2
        with times.measure("judging"):
            clock.seconds += judging
        clock.seconds += generation / 2


def test_judging_inside_generation_counts_once(times, clock):
    times.on_step_begin(None, None, None)
    generate_and_judge(times, clock, 4.0, 1.0)
    clock.seconds += 3.0
    times.on_step_end(None, None, None)
    times.on_step_begin(None, None, None)
    clock.seconds += 2.0  # a step that trains on what the one before generated
    times.on_step_end(None, None, None)
    assert times.trainer._metrics["train"] == {
        "time/generation": [4.0, 0.0],
        "time/judging": [1.0, 0.0],
        "time/update": [3.0, 2.0],
    }


def test_an_evaluation_between_steps_is_no_part_of_them(times, clock):
    generate_and_judge(times, clock, 10.0, 10.0)
    times.on_step_begin(None, None, None)
    generate_and_judge(times, clock, 4.0, 1.0)
    times.on_step_end(None, None, None)
    assert list(times.trainer._metrics["train"].values()) == [[4.0], [1.0], [0.0]]
