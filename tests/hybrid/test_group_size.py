"""How many completions there are to a prompt: asked of the trainer, or counted."""

import pytest

from trl_hybrid.errors import InputError
from trl_hybrid.hybrid.group_size import find_group_size
from trl_hybrid.hybrid.reward_function import HybridReward


class Trainer:
    """What TRL's trainers have."""

    num_generations, num_generations_eval = 4, 2

    def __init__(self, training):
        self.model = self
        self.training = training

    def log_extra(self, column, values):
        pass


def test_the_trainer_that_calls_is_asked_and_for_its_mode():
    assert find_group_size(["q"] * 8, Trainer(training=True).log_extra) == 4
    assert find_group_size(["q"] * 8, Trainer(training=False).log_extra) == 2


@pytest.mark.parametrize("log_extra", [None, lambda *_: None, [].append])
def test_without_a_trainer_equal_prompts_are_counted(log_extra):
    assert find_group_size(["q0"] * 3 + ["q1"] * 3, log_extra) == 3
    messages = [[{"role": "user", "content": f"q{i // 2}"}] for i in range(6)]
    assert find_group_size(messages, log_extra) == 2


def test_unequal_counts_are_refused():
    with pytest.raises(InputError, match=r"prompts with 2 to 4 completions .*HybridGRPOTrainer"):
        find_group_size(["q0"] * 4 + ["q1"] * 2, None)


def test_with_several_processes_a_count_tells_nothing(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"2 processes .*num_generations.*HybridGRPOTrainer"):
        find_group_size(["q0"] * 4, None)
    assert find_group_size(["q"] * 8, Trainer(training=True).log_extra) == 4


def test_a_half_group_that_looks_whole_is_refused():
    """Four rows of one prompt on each of two processes, groups of eight."""
    trainer = Trainer(training=True)
    trainer.num_generations = 8
    reward = HybridReward(lambda **_: [1.0] * 4, lambda **_: [1.0] * 4)
    with pytest.raises(InputError, match=r"num_generations = 8 .*got 4 completions.*HybridGRPOTrainer"):
        reward(["q"] * 4, ["a"] * 4, log_extra=trainer.log_extra)


def test_the_group_size_of_each_call_is_its_own():
    reward = HybridReward(lambda **_: [0.0] * 4, lambda **_: [1.0, 2.0, 10.0, 20.0], eps=1e-12)
    assert reward(["q0", "q0", "q1", "q1"], ["a"] * 4) == pytest.approx([-0.1, 0.1, -0.1, 0.1])
    assert reward(["q0"] * 4, ["a"] * 4) == pytest.approx([-0.1, -0.1 + 0.2 / 19, -0.1 + 1.8 / 19, 0.1])
