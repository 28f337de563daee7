"""What a run says that it will do, against what it does."""

from types import SimpleNamespace

import pytest
import torch
from trl import ModelConfig

from trl_hybrid import HybridGRPOConfig
from trl_hybrid.recipe.outlook import outlook, work_of
from trl_hybrid.training.held_out_accuracy import problems_to_measure


def config(**settings):
    settings = {"num_generations": 8, "per_device_train_batch_size": 16, "max_steps": 40, **settings}
    return HybridGRPOConfig("unused", use_cpu=True, report_to="none", gradient_checkpointing=False, **settings)


def text(work, args, measured=32):
    return outlook(work, args, ModelConfig(dtype="float32"), measured, answers=9)


def test_device_steps_completions_and_answers(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    args = config(gradient_accumulation_steps=8)
    work = work_of(args, rows=160, processes=1)
    assert text(work, args).splitlines() == [
        "What will happen, on the CPU, weights in float32, without gradient checkpointing:",
        "  training  40 steps, 16 problems x 8 = 128 completions a step, 5,120 in all (4.0 passes)",
        "  accuracy  32 problems x 9 = 288 answers before and after",
    ]
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    assert "on the CPU (no GPU is here), weights" in text(work, args)


def test_a_measurement_that_takes_more_than_training_is_called_so():
    args = config(gradient_accumulation_steps=8, max_steps=2)
    work = work_of(args, rows=2000, processes=1)
    assert "(2% of the problems)" in text(work, args)
    # 14 x 9 = 126 of 256 completions, 15 x 9 = 135.
    assert "more than training generates" not in text(work, args, measured=14)
    *_, note = text(work, args, measured=15).splitlines()
    assert note == "            together more than training generates; for fewer: --max_test_rows"
    # 16 x 8 is half of 256, and no more.
    assert "more than training" not in outlook(work, args, ModelConfig(), measured=16, answers=8)
    assert "accuracy" not in text(work, args, measured=0)


def test_completions_that_serve_several_steps():
    # 16 rows a step; one generation of 64 serves 4 steps, and twice that with two iterations.
    args = config(steps_per_generation=4, max_steps=10)
    work = work_of(args, rows=None, processes=1)
    assert "10 steps, 8 problems x 8 = 64 completions every 4 steps, 192 in all" in text(work, args)
    args = config(steps_per_generation=4, num_iterations=2, max_steps=10)
    work = work_of(args, rows=None, processes=1)
    assert "every 8 steps, 128 in all" in text(work, args)


def test_epochs_are_counted_in_whole_generations():
    # 100 problems make 6 generations of 16, one step each.
    args = config(gradient_accumulation_steps=8, max_steps=-1, num_train_epochs=1.5)
    work = work_of(args, rows=100, processes=1)
    assert (work.steps, work.completions) == (9, 9 * 128)


def test_short_runs_measure_fewer_problems():
    # Two passes of nine answers: 40 steps of 128 completions pay for 284, 10 steps for 71.
    assert problems_to_measure(1000, 40 * 128, 9) == 256
    assert problems_to_measure(1000, 10 * 128, 9) == 71
    assert problems_to_measure(1000, 128, 9) == 16
    assert problems_to_measure(5, 128, 9) == 5


def training(rows, processes=1, **settings):
    """The line about training, without its beginning."""
    args = config(**settings)
    return text(work_of(args, rows, processes), args).splitlines()[1].removeprefix("  training  ")


def test_steps_and_passes_of_generations_that_are_longer_or_shorter_than_a_step():
    # 64 completions to 8 problems serve 4 steps of 16 rows; 100 problems make 12 such generations.
    shared = {"steps_per_generation": 4, "num_train_epochs": 1}
    begin = "48 steps, 8 problems x 8 = 64 completions every 4 steps, 768 in all"
    for steps in (-1, 0):
        assert training(100, **shared, max_steps=steps) == f"{begin} (96% of the problems)"
    assert training(96, **shared, max_steps=-1) == f"{begin} (1.0 passes)"
    assert training(64, steps_per_generation=4, max_steps=48).endswith("768 in all (1.5 passes)")
    assert training(None, steps_per_generation=2, max_steps=4).endswith("completions every 2 steps, 64 in all")
    # 16 completions serve half a step of 32 rows.
    halves = training(None, steps_per_generation=1, gradient_accumulation_steps=2, max_steps=1)
    assert halves == "1 step, 2 problems x 8 = 16 completions several times a step, 32 in all"
    assert training(100, max_steps=1).startswith("1 step, ")


def test_two_processes_share_a_step():
    # The settings know of one process, and so of one generation for each step of 16 rows; two take 32.
    work = work_of(config(), None, processes=2)
    assert (work.steps_a_generation, work.generations) == (0.5, 80)


@pytest.mark.parametrize(
    ("device", "processes", "mixed", "checkpointing", "dtype", "said"),
    [
        ("cuda:0", 1, "bf16", True, None,
         "1 x H100 cuda:0, weights in their own type, computing in bf16, with gradient checkpointing:"),
        ("cuda:0", 2, "no", False, "float32", "2 x H100 cuda:0, weights in float32, without gradient checkpointing:"),
        ("mps", 1, "no", False, "float32", "mps, weights in float32, without gradient checkpointing:"),
    ],
)  # fmt: skip
def test_devices_and_number_types(monkeypatch, device, processes, mixed, checkpointing, dtype, said):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"H100 {device}")
    args = SimpleNamespace(
        device=torch.device(device), world_size=processes, mixed_precision=mixed, gradient_checkpointing=checkpointing
    )
    lines = outlook(work_of(config(), None, 1), args, ModelConfig(dtype=dtype), measured=0, answers=9)
    assert lines.splitlines()[0] == f"What will happen, on {said}"
