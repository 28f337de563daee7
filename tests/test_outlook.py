"""What a run says that it will do, against what it does."""

from trl import ModelConfig

from trl_hybrid import HybridGRPOConfig
from trl_hybrid.evaluate import problems_to_measure
from trl_hybrid.outlook import outlook, work_of


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
    assert "together more than training generates; for fewer: --max_test_rows" in text(work, args, measured=15)
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
