"""A run's summary says how long it took."""

from dataclasses import asdict
from types import SimpleNamespace

from trl import ModelConfig

from trl_hybrid.arguments import JudgeArguments, TaskArguments
from trl_hybrid.summary import summary_of


def test_seconds_are_those_of_all_steps_and_of_the_last_attempt(tmp_path):
    times = {"time/generation": 2.0, "time/judging": 1.0, "time/update": 3.0}
    history = [{"step": 1, **times}, {"step": 3, **times}, {"step": 3, "train_runtime": 7.5}]
    trainer = SimpleNamespace(args=SimpleNamespace(seed=1), state=SimpleNamespace(global_step=3, log_history=history))
    settings = {
        "tasks": asdict(TaskArguments()),
        "judges": asdict(JudgeArguments(reward_model_name_or_path="data/embedded_reward_model")),
        "model": asdict(ModelConfig(model_name_or_path="data/embedded_policy")),
    }
    summary = summary_of(tmp_path, trainer, None, settings, seconds=9.25)
    assert summary["seconds"] == {"total": 9.2, "training": 7.5, "steps": 18.0}
    assert summary["steps"] == 3
