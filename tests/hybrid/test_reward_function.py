"""The hybrid reward as a plain reward function: alone, and inside TRL's stock trainer."""

import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from trl_hybrid.hybrid.combine import hybrid_rewards
from trl_hybrid.hybrid.reward_function import HybridReward


NAN = math.nan


class Judge:
    """A reward function with answers given in advance, which remembers what it was asked."""

    def __init__(self, answers):
        self.answers = answers
        self.calls = []

    def __call__(self, prompts, completions, **kwargs):
        self.calls.append(SimpleNamespace(prompts=prompts, completions=completions, **kwargs))
        return self.answers[: len(prompts)]


VERDICTS = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
SCORES = [2.0, 9.0, 1.0, 4.0, -3.0, -1.0, -2.0, 5.0]
PROMPTS = ["q0"] * 4 + ["q1"] * 4


def reward_of(verdicts=VERDICTS, scores=SCORES, size=4, **settings):
    return HybridReward(Judge(verdicts), Judge(scores), size, **settings)


def call(reward, prompts=PROMPTS, **kwargs):
    return reward(prompts=prompts, completions=["an answer"] * len(prompts), **kwargs)


class TestReward:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"alpha": 0.2, "beta": 0.3, "eps": 1.0, "singleton": "floor"},
            {"bounds": "group"},
            {"bounds": "calibrated", "calibrated": (0.0, 5.0)},
        ],
    )
    def test_equals_the_tensor_form(self, settings):
        doubles = torch.tensor(VERDICTS, dtype=torch.float64), torch.tensor(SCORES, dtype=torch.float64)
        assert call(reward_of(**settings)) == hybrid_rewards(*doubles, 4, **settings).tolist()

    def test_unjudgeable_row_is_none(self):
        paid = call(reward_of([None, 1.0, 0.0, 0.0], [99.0, 1.0, 2.0, 4.0], eps=1e-12), PROMPTS[:4])
        assert paid[0] is None
        assert paid[1:] == pytest.approx([1.0, -0.1, 0.1])

    def test_a_lone_right_answer_is_placed_by_the_singleton_rule(self):
        arguments = [1.0, 0.0, 0.0, 0.0], [1.0, 2.0, 2.0, 2.0]
        assert call(reward_of(*arguments), PROMPTS[:4]) == pytest.approx([1.0, 0.0, 0.0, 0.0])
        assert call(reward_of(*arguments, singleton="floor"), PROMPTS[:4]) == pytest.approx([0.9, -0.1, -0.1, -0.1])

    def test_groups_of_one(self):
        assert call(reward_of(size=1), PROMPTS) == pytest.approx(VERDICTS)

    def test_scores_stay_in_double_precision(self):
        columns = {}
        call(reward_of([0.0] * 4, [0.1, 0.2, 0.3, 0.7]), PROMPTS[:4], log_extra=columns.__setitem__)
        assert columns["score"] == [0.1, 0.2, 0.3, 0.7]

    def test_reads_the_verdict_and_not_the_verifiers_number(self):
        reward = reward_of([5.0, 2.0, 0.0, 0.0], [1.0, 2.0, 2.0, 2.0])
        reward.verifier.correct_reward = 5.0
        assert call(reward, PROMPTS[:4]) == pytest.approx([1.0, 0.0, 0.0, 0.0])

    def test_a_single_broken_or_missing_score_takes_the_middle(self):
        paid = call(reward_of([0.0] * 4, [1.0, None, 3.0, 2.0], eps=1e-12), PROMPTS[:4])
        assert paid == pytest.approx([-0.1, 0.0, 0.1, 0.0])

    def test_more_broken_scores_stop_the_run(self):
        with pytest.raises(ValueError, match="2 of 4 reward model scores"):
            call(reward_of([0.0] * 4, [1.0, NAN, math.inf, 2.0]), PROMPTS[:4])

    def test_verifier_starts_before_the_reward_model(self):
        reward, order = reward_of(), []
        reward.verifier.prefetch = lambda *arguments: order.append(arguments)
        reward.reward_model = lambda **kwargs: order.append("score") or SCORES
        call(reward, solution=["1"] * 8)
        assert order == [(["an answer"] * 8, ["1"] * 8, PROMPTS, None), "score"]
        call(reward)
        call(reward, solution=None)
        assert order[2:] == ["score", "score"]  # nothing to verify against
        call(reward, solution=["1"] * 8, completion_truncated=[True] * 8)
        assert order[4] == (["an answer"] * 8, ["1"] * 8, PROMPTS, [True] * 8)

    def test_trls_loggers_reach_the_judges_where_trl_gives_them(self):
        reward, given = reward_of(), {"log_extra": lambda *_: None, "log_metric": lambda *_: None}
        call(reward, **given)
        call(reward)
        for judge in (reward.verifier, reward.reward_model):
            assert (judge.calls[0].prompts, judge.calls[0].completions) == (PROMPTS, ["an answer"] * 8)
            assert {name: vars(judge.calls[0])[name] for name in given} == given
            assert not given.keys() & vars(judge.calls[1]).keys()

    def test_judges_receive_what_trl_passes(self):
        reward = reward_of()
        call(reward, solution=["1"] * 8, completion_ids=[[1]] * 8, trainer_state="state")
        for judge in (reward.verifier, reward.reward_model):
            assert judge.calls[0].solution == ["1"] * 8
            assert judge.calls[0].completion_ids == [[1]] * 8
            assert judge.calls[0].trainer_state == "state"

    def test_logs_the_judges_columns_and_the_kinds_of_groups(self):
        columns, metrics = {}, {}
        call(reward_of(), log_extra=columns.__setitem__, log_metric=metrics.__setitem__)
        assert columns == {"verdict": VERDICTS, "score": SCORES}
        assert metrics["hybrid/pass_rate"] == 0.25
        assert metrics["hybrid/mixed_groups"] == 0.5

    def test_nothing_judged_logs_no_nan(self):
        metrics = {}
        assert call(reward_of([None] * 4), PROMPTS[:4], log_metric=metrics.__setitem__) == [None] * 4
        assert metrics["hybrid/unjudged"] == 1.0
        assert not any(math.isnan(value) for value in metrics.values())

    def test_picklable_and_named(self):
        reward = pickle.loads(pickle.dumps(reward_of()))
        assert reward.__name__ == "hybrid_reward"
        assert call(reward) == call(reward_of())

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"alpha": 0.6, "beta": 0.6}, "alpha \\+ beta"),
            ({"singleton": "top"}, "singleton"),
            ({"bounds": "calibrated"}, "go together"),
            ({"size": 0}, "num_generations must be at least 1"),
        ],
    )
    def test_bad_settings_are_told_before_training(self, settings, named):
        with pytest.raises(ValueError, match=named):
            reward_of(**settings)


class TestWholeGroups:
    @pytest.mark.parametrize(
        ("prompts", "problem"),
        [
            (["q0"] * 4 + ["q1"] * 2, "got 6 completions"),
            (["q0"] * 2 + ["q1"] * 4 + ["q2"] * 2, "completion 2 has another prompt than completion 0"),
            (["q0"] * 4 + ["q1", "q1", "q2", "q2"], "completion 6 has another prompt than completion 4"),
        ],
    )
    def test_a_split_group_is_refused_with_a_way_out(self, prompts, problem):
        with pytest.raises(ValueError, match=f"num_generations = 4 .*{problem}.*num_generations_eval"):
            call(reward_of(), prompts)

    def test_two_rows_of_one_prompt_are_two_groups(self):
        paid = call(reward_of([0.0] * 8, [1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0], eps=1e-12), ["q0"] * 8)
        assert paid[:4] == pytest.approx(paid[4:])

    def test_no_rows(self):
        assert call(reward_of(), []) == []


class HoldsASeven:
    """Right is what holds a 7."""

    def __call__(self, completions, **kwargs):
        return [float("7" in completion[0]["content"]) for completion in completions]


class Length:
    """The longer, the better."""

    def __call__(self, completions, **kwargs):
        return [float(len(completion[0]["content"])) for completion in completions]


class TestInTheStockTrainer:
    @pytest.fixture
    def trainer(self, tmp_path):
        args = GRPOConfig(
            str(tmp_path),
            num_generations=4,
            num_generations_eval=2,
            per_device_train_batch_size=8,
            per_device_eval_batch_size=8,
            max_completion_length=16,
            max_steps=2,
            learning_rate=1e-3,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            logging_steps=1,
            scale_rewards="none",
        )
        tasks = Dataset.from_dict(
            {
                "prompt": [[{"role": "user", "content": f"What is {i} + {i}?"}] for i in range(4)],
                "solution": [str(2 * i) for i in range(4)],
            }
        )
        reward = HybridReward(HoldsASeven(), Length())  # it asks the trainer for four, and for two in evaluation
        return GRPOTrainer(
            "data/embedded_policy", reward_funcs=reward, args=args, train_dataset=tasks, eval_dataset=tasks
        )

    def test_two_steps_and_an_evaluation(self, trainer):
        before = {name: value.clone() for name, value in trainer.model.named_parameters()}
        trainer.train()
        assert any(not torch.equal(before[name], value) for name, value in trainer.model.named_parameters())
        steps = [row for row in trainer.state.log_history if "rewards/hybrid_reward/mean" in row]
        assert len(steps) == 2

        table = trainer._logs
        columns = [list(table["extra"]["verdict"])[-8:], list(table["extra"]["score"])[-8:]]
        assert columns[1] == [float(len(completion[0]["content"])) for completion in list(table["completion"])[-8:]]
        expected = hybrid_rewards(*(torch.tensor(column, dtype=torch.float64) for column in columns), 4)
        paid = torch.tensor(list(table["rewards"]["hybrid_reward"])[-8:])
        torch.testing.assert_close(paid, expected.float())
        advantages = paid.view(2, 4) - paid.view(2, 4).mean(dim=1, keepdim=True)
        assert list(table["advantages"])[-8:] == pytest.approx(advantages.flatten().tolist(), abs=1e-6)
        assert steps[-1]["hybrid/pass_rate"] == pytest.approx(sum(columns[0]) / 8)

        assert "eval_hybrid/pass_rate" in trainer.evaluate()
