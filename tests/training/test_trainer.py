"""The trainer's own work: one hybrid column over whole groups, made from two judges' gathered columns."""

import inspect
import math
import os
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.attention import varlen
from transformers import AutoTokenizer, TrainerCallback
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.errors import InputError
from trl_hybrid.hybrid.combine import combine_hybrid_score
from trl_hybrid.packing.attention import PACKABLE
from trl_hybrid.training.config import judged_config
from trl_hybrid.training.reward_columns import REWARD_MODEL, VERIFIER, order_warnings, with_weights
from trl_hybrid.training.seams import HANDED_ON, METHODS, TESTED, check_methods


POLICY = "data/embedded_policy"
NAN = math.nan


class Judge:
    """A reward function with answers given in advance, which remembers what it was asked."""

    def __init__(self, name, answers):
        self.__name__ = name
        self.answers = answers
        self.calls = []

    def __call__(self, prompts, completions, **kwargs):
        self.calls.append(SimpleNamespace(prompts=prompts, completions=completions, **kwargs))
        return self.answers[: len(prompts)]


def config(folder, **changes):
    settings = {
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 16,
        "max_steps": 1,
        "learning_rate": 1e-3,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
    }
    return HybridGRPOConfig(str(folder), **{**settings, **changes})


def tasks(rows=4):
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": f"What is {i} + {i}?"}] for i in range(rows)],
            "solution": [str(2 * i) for i in range(rows)],
        }
    )


def hybrid_trainer(folder, verdicts, scores, reward_funcs=None, args=None, **kwargs):
    return HybridGRPOTrainer(
        POLICY,
        reward_funcs,
        args or config(folder),
        train_dataset=tasks(),
        verifier=Judge("math_verifier", verdicts),
        reward_model=Judge("reward_model", scores),
        **kwargs,
    )


def calculate(trainer, rows, ids=None):
    """Call TRL's seam as TRL does, with `rows` completions."""
    prompts = [[{"role": "user", "content": f"question {i // 4}"}] for i in range(rows)]
    completions = [[{"role": "assistant", "content": f"answer {i}"}] for i in range(rows)]
    inputs = [{"prompt": prompt, "solution": "1"} for prompt in prompts]
    return trainer._calculate_rewards(inputs, prompts, completions, ids or [[5, 2]] * rows)


def centred(paid, group):
    """Less each group's mean; NaN counts for nothing and becomes 0, as in TRL."""
    groups = torch.as_tensor(paid).view(-1, group)
    return (groups - groups.nanmean(dim=1, keepdim=True)).nan_to_num(0.0).flatten().tolist()


def metrics(trainer, name):
    """What each step logged under a name."""
    return [row[name] for row in trainer.state.log_history if name in row]


VERDICTS = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
SCORES = [2.0, 9.0, 1.0, 4.0, -3.0, -1.0, -2.0, 5.0]


class TestHybridColumn:
    def test_equals_the_scalar_form_over_each_groups_strata(self, tmp_path):
        rewards = calculate(hybrid_trainer(tmp_path, VERDICTS, SCORES), 8)
        # Group 0: right 2..4, wrong 1..9. Group 1: all wrong, -3..5.
        bounds = [(2.0, 4.0), (1.0, 9.0), (1.0, 9.0), (2.0, 4.0)] + [(-3.0, 5.0)] * 4
        expected = [combine_hybrid_score(v, s, *b) for v, s, b in zip(VERDICTS, SCORES, bounds, strict=True)]
        assert rewards[:, VERIFIER].tolist() == VERDICTS
        assert rewards[:, REWARD_MODEL].tolist() == SCORES
        assert rewards[:, 2].tolist() == pytest.approx(expected, abs=1e-6)

    def test_settings_reach_it(self, tmp_path):
        args = config(tmp_path, hybrid_alpha=0.2, hybrid_beta=0.3, hybrid_eps=1.0, hybrid_singleton="floor")
        rewards = calculate(hybrid_trainer(tmp_path, [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0], args=args), 4)
        # One right answer: its floor. Three wrong ones: z = 0, 1/3, 2/3.
        assert rewards[:, 2].tolist() == pytest.approx([0.7, -0.2, -0.2 + 0.4 / 3, -0.2 + 0.8 / 3], abs=1e-6)

    def test_reads_the_verdict_and_not_the_verifiers_number(self, tmp_path):
        # 2.0 is for the form of a wrong answer, and more than a right one gets from other verifiers.
        trainer = hybrid_trainer(tmp_path, [5.0, 2.0, 0.0, 0.0], [1.0, 2.0, 2.0, 2.0])
        trainer.verifier.correct_reward = 5.0
        assert calculate(trainer, 4)[:, 2].tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=1e-6)

    def test_unjudgeable_row_is_nan_in_every_column_and_moves_nobody(self, tmp_path):
        bonus = Judge("bonus", [1.0] * 4)
        trainer = hybrid_trainer(tmp_path, [None, 1.0, 0.0, 0.0], [99.0, 1.0, 2.0, 4.0], reward_funcs=[bonus])
        rewards = calculate(trainer, 4)
        assert rewards[0].isnan().all()
        assert rewards[1:, 3].tolist() == pytest.approx([1.0, -0.1, 0.1], abs=1e-6)
        assert trainer._pending_extra_logs["score"] == [99.0, 1.0, 2.0, 4.0]

    def test_group_size_in_evaluation_is_the_evaluations_own(self, tmp_path):
        trainer = hybrid_trainer(
            tmp_path, [0.0] * 4, [1.0, 3.0, 10.0, 30.0], args=config(tmp_path, num_generations_eval=2)
        )
        trainer.model.eval()
        assert calculate(trainer, 4)[:, 2].tolist() == pytest.approx([-0.1, 0.1, -0.1, 0.1], abs=1e-6)
        trainer.model.train()  # one group of four: 1..30
        expected = [-0.1 + 0.2 * (score - 1.0) / 29.0 for score in (1.0, 3.0, 10.0, 30.0)]
        assert calculate(trainer, 4)[:, 2].tolist() == pytest.approx(expected, abs=1e-6)

    def test_a_single_broken_score_takes_the_middle_and_is_counted(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, [0.0] * 4, [1.0, NAN, 3.0, 2.0])
        assert calculate(trainer, 4)[:, 2].tolist() == pytest.approx([-0.1, 0.0, 0.1, 0.0], abs=1e-6)
        assert trainer._pending_metrics["hybrid/non_finite_scores"] == [1.0]

    def test_more_broken_scores_stop_the_run(self, tmp_path):
        with pytest.raises(ValueError, match="2 of 4 reward model scores"):
            calculate(hybrid_trainer(tmp_path, [0.0] * 4, [1.0, NAN, math.inf, 2.0]), 4)

    def test_cut_off_completions_are_named_to_the_judges(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        eos = trainer.eos_token_ids[0]
        ids = [[7, eos], [7, 7], [eos], []]
        calculate(trainer, 4, ids=ids)
        assert trainer.reward_model.calls[0].completion_truncated == [False, True, False, True]
        assert trainer.reward_model.calls[0].completion_ids == ids

    def test_verifier_works_while_the_reward_model_scores(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        order = []
        trainer.verifier.prefetch = lambda *asked: order.append(("prefetch", *asked))
        for column, name in ((REWARD_MODEL, "score"), (VERIFIER, "collect")):
            answers = trainer.reward_funcs[column].answers
            trainer.reward_funcs[column] = lambda name=name, answers=answers, **kwargs: order.append(name) or answers
        calculate(trainer, 8, ids=[[7, trainer.eos_token_ids[0]]] * 7 + [[7]])
        completions = [[{"role": "assistant", "content": f"answer {i}"}] for i in range(8)]
        prompts = [[{"role": "user", "content": f"question {i // 4}"}] for i in range(8)]
        ahead = ("prefetch", completions, ["1"] * 8, prompts, [False] * 7 + [True])
        assert order == [ahead, "score", "collect"]

    def test_each_answer_is_extracted_once(self, tmp_path, monkeypatch):
        from trl_hybrid.verifier import verifier

        finished, extract = [], verifier.extract_answer
        monkeypatch.setattr(
            verifier, "extract_answer", lambda *row: (finished.append((row[0], row[2])), extract(*row))[1]
        )
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        with MathVerifier(num_workers=1) as trainer.verifier:
            trainer.reward_funcs[VERIFIER] = trainer.verifier
            calculate(trainer, 4, ids=[[7, trainer.eos_token_ids[0]]] * 3 + [[7]])
        assert finished == [("answer 0", True), ("answer 1", True), ("answer 2", True), ("answer 3", False)]

    def test_without_solutions_nothing_is_verified_ahead(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.verifier.prefetch = lambda *asked: pytest.fail("asked ahead")
        prompts = [[{"role": "user", "content": "q"}]] * 4
        rewards = trainer._calculate_rewards([{"prompt": p} for p in prompts], prompts, prompts, [[2]] * 4)
        assert rewards[:, VERIFIER].tolist() == VERDICTS[:4]

    def test_a_process_may_have_a_single_row(self, tmp_path):
        args = config(tmp_path, num_generations_eval=1)
        trainer, asked = hybrid_trainer(tmp_path, [1.0], [3.0], args=args), []
        trainer.verifier.prefetch = lambda completions, solutions, *more: asked.append(solutions)
        trainer.model.eval()
        assert calculate(trainer, 1).tolist() == [[3.0, 1.0, 1.0]]
        assert asked == [["1"]]

    def test_logs_the_share_of_each_kind_of_group(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        calculate(trainer, 8)
        logged = {name: values[0] for name, values in trainer._pending_metrics.items()}
        assert logged["hybrid/pass_rate"] == 0.25
        assert logged["hybrid/mixed_groups"] == 0.5
        assert logged["hybrid/all_wrong_groups"] == 0.5
        assert logged["hybrid/all_right_groups"] == 0.0


@pytest.mark.parametrize("rank", [0, 1])
def test_each_of_two_processes_keeps_its_own_rows(tmp_path, monkeypatch, rank):
    """The gathered rows are two groups, of which the first is process 0's; all its scores are the higher ones."""
    trainer = hybrid_trainer(tmp_path, [], [], args=config(tmp_path, per_device_train_batch_size=4))
    trainer.model.train()
    monkeypatch.setattr(type(trainer.accelerator), "process_index", rank)
    monkeypatch.setattr(trainer.accelerator, "gather", lambda own: own.repeat(2))
    gathered = torch.tensor([[score, 0.0, NAN] for score in [float(i) for i in range(8)]])
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda *_: gathered.clone())
    calculate(trainer, 4)
    assert trainer._pending_extra_logs["score"] == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]][rank]
    assert trainer._pending_extra_logs["verdict"] == [0.0] * 4


class TestWeights:
    def test_judges_weigh_nothing_and_the_callers_objects_stay_as_they_were(self, tmp_path):
        extras, args = [Judge("bonus", [0.0] * 8)], config(tmp_path, reward_weights=[0.5])
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES, reward_funcs=extras, args=args)
        assert trainer.reward_func_names == ["reward_model", "math_verifier", "bonus", "hybrid_reward"]
        assert trainer.reward_weights.tolist() == [0.0, 0.0, 0.5, 1.0]
        assert len(extras) == 1
        assert args.reward_weights == [0.5]

    def test_further_functions_weigh_one_each_unless_they_are_given_weights(self, tmp_path):
        assert with_weights(config(tmp_path), extras=2).reward_weights == [0.0, 0.0, 1.0, 1.0, 1.0]
        assert with_weights(config(tmp_path, reward_weights=[0.5]), extras=1).reward_weights == [0.0, 0.0, 0.5, 1.0]

    def test_advantage_is_the_hybrid_reward_less_its_groups_mean(self, tmp_path):
        args = config(tmp_path, hybrid_difficulty_weighting=False)
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES, args=args)
        trainer.train()
        table = trainer._logs
        paid = torch.tensor(table["rewards"]["hybrid_reward"])
        assert list(table["advantages"]) == pytest.approx(centred(paid, 4), abs=1e-6)
        assert paid[0] > paid[1] > paid[2]

    def test_default_scaling_keeps_a_group_without_right_answers_quiet(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.train()
        mixed, wrong = torch.tensor(trainer._logs["advantages"]).view(2, 4).abs().mean(dim=1)
        assert wrong < 0.2 * mixed


@pytest.mark.parametrize("alone", [True, False], ids=["itself", "in a list"])
def test_a_further_reward_models_tokenizer_stays_with_it(tmp_path, alone):
    tokenizer, model = AutoTokenizer.from_pretrained("data/embedded_reward_model"), "data/embedded_reward_model"
    given = {"reward_funcs": model, "reward_processing_classes": tokenizer if alone else [tokenizer]}
    trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES, **given)
    assert [trainer.reward_processing_classes[place] for place in (0, 1, 3)] == [None] * 3
    assert trainer.reward_processing_classes[2] is tokenizer


@pytest.mark.parametrize("policy", ["team/models/POLICY-X/", "POLICY-X"])
def test_settings_that_are_not_given_name_the_run_after_the_policy(policy):
    assert judged_config(None, policy).output_dir == "POLICY-X-HybridGRPO"
    model = SimpleNamespace(config=SimpleNamespace(_name_or_path=policy))
    assert judged_config(None, model).output_dir == "POLICY-X-HybridGRPO"


def test_a_run_without_settings_has_the_defaults(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    judges = {"verifier": Judge("math_verifier", []), "reward_model": Judge("reward_model", [])}
    trainer = HybridGRPOTrainer(POLICY, train_dataset=tasks(), **judges)
    assert (trainer.args.output_dir, trainer.args.hybrid_alpha) == ("embedded_policy-HybridGRPO", 0.1)


def judged_once(folder, verdicts, scores, **settings):
    """Train one step; the advantages and the rewards by column, as the table has them."""
    trainer = hybrid_trainer(folder, verdicts, scores, args=config(folder, **settings))
    trainer.train()
    return trainer, list(trainer._logs["advantages"]), {k: list(v) for k, v in trainer._logs["rewards"].items()}


class TestRewardModes:
    def test_verifier_alone(self, tmp_path):
        trainer, advantages, _ = judged_once(tmp_path, VERDICTS, SCORES, reward_mode="verifier")
        assert advantages == pytest.approx([0.5, -0.5, -0.5, 0.5, 0, 0, 0, 0], abs=1e-6)
        assert trainer.reward_weights.tolist() == [0.0, 1.0, 0.0]

    def test_reward_model_alone(self, tmp_path):
        _, advantages, _ = judged_once(tmp_path, VERDICTS, SCORES, reward_mode="reward_model")
        # Means 4 and -0.25.
        assert advantages == pytest.approx([-2, 5, -3, 0, -2.75, -0.75, -1.75, 5.25], abs=1e-6)

    def test_sum_of_both(self, tmp_path):
        _, advantages, _ = judged_once(tmp_path, VERDICTS, SCORES, reward_mode="sum")
        # 3, 9, 1, 5 about 4.5.
        assert advantages[:4] == pytest.approx([-1.5, 4.5, -3.5, 0.5], abs=1e-6)

    def test_gdpo_normalises_each_judge_in_its_group_and_the_sum_over_the_batch(self, tmp_path):
        trainer, advantages, _ = judged_once(tmp_path, VERDICTS, SCORES, reward_mode="gdpo")
        columns = [torch.tensor(x).view(2, 4) for x in (VERDICTS, SCORES)]
        added = sum((c - c.mean(1, keepdim=True)) / (c.std(1, keepdim=True) + 1e-4) for c in columns).flatten()
        assert advantages == pytest.approx(((added - added.mean()) / (added.std() + 1e-4)).tolist(), abs=1e-5)
        assert trainer.reward_weights.tolist() == [1.0, 1.0, 0.0]

    @pytest.mark.parametrize("mode", ["verifier", "reward_model", "sum", "gdpo"])
    def test_hybrid_column_and_figures_are_the_same_in_every_arm_and_no_weight_acts(self, tmp_path, mode):
        results = {}
        for name in ("hybrid", mode):
            trainer, _, paid = judged_once(tmp_path / name, VERDICTS, SCORES, reward_mode=name)
            figures = {
                key: value
                for row in trainer.state.log_history
                for key, value in row.items()
                if key.startswith("hybrid/") and not key.startswith(("hybrid/weight_", "hybrid/sigma_bar"))
            }
            rescued = figures.pop("hybrid/rescued_groups")
            results[name] = paid["hybrid_reward"], figures
        assert results[mode] == results["hybrid"]
        assert rescued == (0.0 if mode == "verifier" else 0.5)
        assert metrics(trainer, "hybrid/sigma_bar") == []

    @pytest.mark.parametrize("broken", [math.inf, NAN])
    @pytest.mark.parametrize("mode", ["reward_model", "sum", "gdpo"])
    def test_a_row_without_a_finite_score_is_left_out_where_scores_count(self, tmp_path, mode, broken):
        scores = [broken, *SCORES[1:]]
        _, advantages, paid = judged_once(tmp_path, VERDICTS, scores, reward_mode=mode)
        assert all(math.isnan(column[0]) for column in paid.values())
        assert advantages[0] == 0.0
        assert all(abs(advantage) < 10 for advantage in advantages)
        if mode == "reward_model":  # 9, 1, 4 about 14/3
            assert advantages[1:4] == pytest.approx([13 / 3, -11 / 3, -2 / 3], abs=1e-5)

    @pytest.mark.parametrize("mode", ["hybrid", "verifier"])
    def test_where_scores_do_not_count_it_keeps_its_verdict(self, tmp_path, mode):
        scores = [math.inf, *SCORES[1:]]
        trainer, advantages, paid = judged_once(tmp_path, VERDICTS, scores, reward_mode=mode)
        assert paid["math_verifier"][0] == 1.0
        assert paid["hybrid_reward"][0] == 1.0  # z = 0.5
        assert advantages[0] > 0.4
        assert metrics(trainer, "rewards/reward_model/mean") == [pytest.approx(13 / 7)]

    def test_further_functions_are_added_in_every_arm(self, tmp_path):
        bonus = Judge("bonus", [1.0] + [0.0] * 7)
        args = config(tmp_path, reward_mode="verifier", reward_weights=[2.0])
        trainer = hybrid_trainer(tmp_path, [0.0] * 8, SCORES, reward_funcs=bonus, args=args)
        trainer.train()
        assert list(trainer._logs["advantages"])[:4] == pytest.approx([1.5, -0.5, -0.5, -0.5])

    def test_rewards_that_may_upset_the_order_are_warned_of(self, tmp_path, caplog):
        hybrid_trainer(tmp_path, VERDICTS, SCORES, reward_funcs=Judge("bonus", []))
        assert "The reward functions bonus are added" in caplog.text
        # TRL puts an environment's own reward last.
        names = ["reward_model", "math_verifier", "bonus", "hybrid_reward", "Sudoku"]
        (said,) = order_warnings(config(tmp_path), names, hybrid_column=3, group_size=4)
        assert said.startswith("The reward functions bonus, Sudoku are added")

    def test_group_scaling_of_the_hybrid_reward_is_warned_of(self, tmp_path, caplog):
        hybrid_trainer(tmp_path, VERDICTS, SCORES, args=config(tmp_path, scale_rewards="group"))
        assert "4 wrong answers, ranked by the reward model alone" in caplog.text
        caplog.clear()
        hybrid_trainer(tmp_path, VERDICTS, SCORES, args=config(tmp_path))
        args = config(tmp_path, scale_rewards="group", reward_mode="verifier")
        hybrid_trainer(tmp_path, VERDICTS, SCORES, args=args)
        assert "scale_rewards" not in caplog.text


def logistic(x):
    return 1.0 / (1.0 + math.exp(-x))


# Scores 0, 1, 0, 1 and 0, 3, 0, 3: deviations 0.5 and 1.5, about 1.
SPREADS = [0.0, 1.0, 0.0, 1.0, 0.0, 3.0, 0.0, 3.0]


class TestDifficultyWeight:
    def test_advantages_are_multiplied_by_the_weight_of_their_group(self, tmp_path):
        settings = {"hybrid_w_min": 0.5, "hybrid_w_max": 2.5, "hybrid_k": 2.0}
        trainer, advantages, paid = judged_once(tmp_path, [0.0] * 8, SPREADS, **settings)
        low, high = 0.5 + 2.0 * logistic(-1.0), 0.5 + 2.0 * logistic(1.0)
        assert paid["hybrid_reward"] == pytest.approx([-0.1, 0.1] * 4, abs=1e-5)
        assert advantages == pytest.approx([-0.1 * low, 0.1 * low] * 2 + [-0.1 * high, 0.1 * high] * 2, abs=1e-5)
        assert metrics(trainer, "hybrid/sigma_bar") == [pytest.approx(1.0)]
        assert metrics(trainer, "hybrid/weight_all_wrong") == [pytest.approx(1.5)]
        assert metrics(trainer, "hybrid/weight_mixed") == []

    def test_it_acts_under_every_scaling(self, tmp_path):
        ratios = {}
        for scaling in ("none", "group", "batch"):
            _, advantages, _ = judged_once(tmp_path / scaling, [0.0] * 8, SPREADS, scale_rewards=scaling)
            ratios[scaling] = advantages[5] / advantages[1]
        # k = 6, w from 0.4 to 3.
        expected = (0.4 + 2.6 * logistic(3.0)) / (0.4 + 2.6 * logistic(-3.0))
        assert ratios == {scaling: pytest.approx(expected, rel=1e-4) for scaling in ratios}

    def test_the_settings_choose_the_variant(self, tmp_path):
        # Relative to sigma_bar 1 the gap is the same; divided by the mean of the two weights, they average 1.
        settings = {"hybrid_scale_free": True, "hybrid_weight_mean_one": True}
        trainer, advantages, _ = judged_once(tmp_path / "a", [0.0] * 8, [10 * s for s in SPREADS], **settings)
        low, high = (0.4 + 2.6 * logistic(x) for x in (-3.0, 3.0))
        mean = (low + high) / 2
        assert [advantages[1], advantages[5]] == pytest.approx([0.1 * low / mean, 0.1 * high / mean], abs=1e-5)
        assert metrics(trainer, "hybrid/weight_all_wrong") == [pytest.approx(1.0)]
        # Within the verdicts nothing differs: both groups weigh as at the mean.
        verdicts = [0.0, 1.0] * 4
        _, advantages, _ = judged_once(tmp_path / "b", verdicts, SPREADS, hybrid_sigma="stratum")
        assert advantages[5] == pytest.approx(advantages[1])

    def test_what_is_trained_on_is_what_the_table_shows(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, [0.0] * 8, SPREADS)
        trainer.model.train()
        inputs = [row for row in trainer.train_dataset for _ in range(4)][:8]
        output = trainer._generate_and_score_completions(inputs)
        assert output["advantages"].tolist() == list(trainer._logs["advantages"])
        assert output["advantages"].dtype == torch.float32

    def test_evaluation_has_no_weight_and_moves_nothing(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, [0.0] * 8, SPREADS)
        trainer.model.train()
        inputs = [row for row in trainer.train_dataset for _ in range(4)][:8]
        trainer._generate_and_score_completions(inputs)
        before = trainer.judgement.state_dict()
        trainer.model.eval()
        trainer.reward_model.answers = [0.0, 50.0] * 4
        output = trainer._generate_and_score_completions(inputs)
        assert output["advantages"].tolist() == pytest.approx([-0.1, 0.1] * 4, abs=1e-5)
        assert trainer.judgement.state_dict() == before
        assert "hybrid/pass_rate" in trainer._metrics["eval"]
        assert not {"hybrid/sigma_bar", "hybrid/alarm", "hybrid/auc_recent"} & set(trainer._metrics["eval"])

    # A group of one score and one of 0 and `high`: deviations 0 and high / 2, about a mean of high / 4. With k = 6 a
    # gap of 2 is at an end, sigmoid(12); with k = 24 one of 0.75.
    @pytest.mark.parametrize(
        ("high", "settings", "said"),
        [
            (
                8.0,
                {},
                r"hybrid_k = 6 .* scores\. Set hybrid_scale_free to true, or hybrid_k to 3: .* deviation is 2 here\.",
            ),
            (
                6.0,
                {"hybrid_k": 24.0},
                r"Set hybrid_scale_free to true, or hybrid_k to 16: .* deviation is 1\.5 here\.",
            ),
            # In units of the score or of its deviation is then the same.
            (4.0, {"hybrid_k": 24.0}, r"hybrid_k = 24 .* scores\. Set hybrid_k lower, to 12 for instance\."),
            (8.0, {"hybrid_scale_free": True}, r"hybrid_k = 6 .* scores\. Set hybrid_k lower, to 3 for instance\."),
        ],
    )
    def test_a_weight_that_is_a_switch_is_warned_of_once(self, tmp_path, caplog, high, settings, said):
        args = config(tmp_path, **settings)
        trainer = hybrid_trainer(tmp_path, [0.0] * 8, [0.0] * 4 + [0.0, high] * 2, args=args)
        trainer.model.train()
        for _ in range(19):
            calculate(trainer, 8)
        assert trainer._pending_metrics["hybrid/weight_saturated"] == [1.0] * 19
        assert "switch" not in caplog.text
        for _ in range(20):
            calculate(trainer, 8)
        assert caplog.text.count("The difficulty weight has become a switch") == 1
        assert "Step 0:" in caplog.text
        assert "the last 20 steps weigh about hybrid_w_min = 0.4 or hybrid_w_max = 3 (" in caplog.text
        assert re.search(said, caplog.text)

    def test_a_weight_between_its_ends_is_not_warned_of(self, tmp_path, caplog):
        trainer = hybrid_trainer(tmp_path, [0.0] * 8, SPREADS, args=config(tmp_path, hybrid_k=2.0))
        trainer.model.train()
        for _ in range(20):
            calculate(trainer, 8)
        assert trainer._pending_metrics["hybrid/weight_saturated"] == [0.0] * 20
        assert "switch" not in caplog.text


class TestDiagnostics:
    def test_each_step_says_what_the_judges_tell(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.model.train()
        calculate(trainer, 8, ids=[[7] * n for n in (2, 9, 1, 4, 2, 2, 2, 2)])
        logged = {name: values for name, values in trainer._pending_metrics.items() if name.startswith("hybrid/")}
        assert all(len(values) == 1 for values in logged.values())
        logged = {name.removeprefix("hybrid/"): values[0] for name, values in logged.items()}
        assert logged["rescued_groups"] == 0.5
        assert (logged["score_right_mean"], logged["score_right_std"]) == (3.0, 1.0)
        assert logged["score_wrong_mean"] == pytest.approx(1.5)
        assert logged["auc"] == logged["auc_recent"] == 0.5  # right 2 and 4, wrong 9 and 1
        assert logged["auc_groups"] == logged["auc_recent_groups"] == 1.0
        assert logged["disagreement"] == 0.125
        lengths = torch.tensor([2.0, 9, 1, 4, 2, 2, 2, 2])
        expected = torch.corrcoef(torch.stack([torch.tensor(SCORES), lengths]))[0, 1]
        assert logged["score_length_correlation"] == pytest.approx(expected.item(), abs=1e-5)
        assert trainer._pending_extra_logs["disagreement"] == [False, True] + [False] * 6

    def test_a_figure_that_nothing_speaks_for_is_left_out(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, [0.0] * 8, SCORES)
        calculate(trainer, 8)
        assert not any(math.isnan(value) for values in trainer._pending_metrics.values() for value in values)
        assert not {"hybrid/auc", "hybrid/score_right_mean"} & set(trainer._pending_metrics)

    def test_drift_is_against_the_first_steps(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.model.train()
        for _ in range(10):
            calculate(trainer, 8)
        trainer.reward_model.answers = [score + 2.0 for score in SCORES]
        calculate(trainer, 8)
        assert trainer._pending_metrics["hybrid/score_drift"] == [pytest.approx(2.0)]

    def test_the_alarm_warns_once_and_stays_on(self, tmp_path, caplog):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.model.train()
        for step in range(60):
            trainer.verifier.answers = [float(i >= step / 10) for i in range(8)]
            trainer.reward_model.answers = [score + step for score in SCORES]
            calculate(trainer, 8)
        alarm = trainer._pending_metrics["hybrid/alarm"]
        assert alarm == sorted(alarm)
        assert (alarm[0], alarm[-1]) == (0.0, 1.0)
        assert len(re.findall("Step 0: .* while the pass rate falls", caplog.text)) == 1


class TestCalibration:
    def calibrated(self, folder, scores=SCORES, **settings):
        args = config(folder, hybrid_bounds="calibrated", **settings)
        return hybrid_trainer(folder, VERDICTS, scores, args=args)

    def test_bounds_are_those_of_the_answers_to_the_first_prompts(self, tmp_path):
        trainer = self.calibrated(tmp_path, hybrid_calibration_prompts=2)
        trainer.reward_model.answers = [-8.0, NAN, 0.0, 2.0, 1.0, 12.0, 3.0, None]
        trainer.calibrate()
        call = trainer.reward_model.calls[0]
        assert [p[0]["content"] for p in call.prompts] == ["What is 0 + 0?"] * 4 + ["What is 1 + 1?"] * 4
        assert call.solution == ["0"] * 4 + ["2"] * 4
        assert len({c[0]["content"] for c in call.completions}) > 1
        assert trainer.judgement.bounds.value == (-8.0, 12.0)
        trainer.reward_model.answers = SCORES
        trainer.train()
        assert len(trainer.reward_model.calls) == 2
        # z = (score + 8) / 20: right 2 -> 0.5, wrong 9 -> 0.85.
        assert list(trainer._logs["rewards"]["hybrid_reward"])[:2] == pytest.approx([1.0, 0.07], abs=1e-6)
        assert (metrics(trainer, "hybrid/rm_min"), metrics(trainer, "hybrid/rm_max")) == ([-8.0], [12.0])

    def test_more_answers_than_a_training_batch_holds_take_several_calls(self, tmp_path):
        trainer = self.calibrated(tmp_path, hybrid_calibration_prompts=3)
        trainer.train()
        assert [len(call.prompts) for call in trainer.reward_model.calls] == [8, 8, 8]
        asked = [p[0]["content"] for call in trainer.reward_model.calls[:2] for p in call.prompts[::4]]
        assert asked == [f"What is {i} + {i}?" for i in (0, 1, 2, 0)]

    def test_all_prompts_where_there_are_fewer(self, tmp_path):
        trainer = self.calibrated(tmp_path)
        trainer.calibrate()
        assert sum(len(call.prompts) for call in trainer.reward_model.calls) == 16

    def test_streamed_prompts_start_again_for_training(self, tmp_path):
        args = config(tmp_path, hybrid_bounds="calibrated", hybrid_calibration_prompts=1)
        trainer = HybridGRPOTrainer(
            POLICY,
            args=args,
            train_dataset=tasks().to_iterable_dataset(),
            verifier=Judge("math_verifier", VERDICTS),
            reward_model=Judge("reward_model", SCORES),
        )
        trainer.train()
        assert trainer.reward_model.calls[0].solution == ["0"] * 4
        assert trainer.judgement.bounds.value == (1.0, 9.0)

    def test_it_leaves_no_trace_but_the_bounds(self, tmp_path):
        histories, weights = [], []
        for name in ("calibrated", "given"):
            trainer = self.calibrated(tmp_path / name, hybrid_calibration_prompts=2, max_steps=2)
            if name == "given":
                trainer.judgement.bounds.load_state_dict({"low": -3.0, "high": 9.0})
            trainer.train()
            timed = ("step_time", "time/", "train_runtime", "train_samples_per_second", "train_steps_per_second")
            rows = trainer.state.log_history
            histories.append([{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows])
            weights.append(weights_of(trainer))
            assert list(trainer._logs["completion"])
        assert histories[0] == histories[1]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_random_states_are_what_they_were(self, tmp_path):
        trainer = self.calibrated(tmp_path)
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
        trainer.calibrate()
        assert before[:2] == (random.getstate(), np.random.get_state()[1].tolist())
        assert torch.equal(before[2], torch.get_rng_state())

    def test_an_evaluation_before_training_calibrates_too(self, tmp_path):
        args = config(tmp_path, hybrid_bounds="calibrated", num_generations_eval=2, per_device_eval_batch_size=4)
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES, args=args, eval_dataset=tasks(2))
        assert trainer.evaluate()["eval_hybrid/rm_max"] == 9.0
        assert trainer.judgement.bounds.value == (-3.0, 9.0)

    def test_an_asynchronous_reward_model_is_awaited(self, tmp_path):
        async def score(prompts, **kwargs):
            return SCORES[: len(prompts)]

        args = config(tmp_path, hybrid_bounds="calibrated")
        trainer = HybridGRPOTrainer(
            POLICY,
            args=args,
            train_dataset=tasks(),
            verifier=Judge("math_verifier", VERDICTS),
            reward_model=score,
        )
        trainer.train()
        assert metrics(trainer, "hybrid/rm_min") == [-3.0]

    def test_a_policy_with_tools_is_refused(self, tmp_path):
        trainer = self.calibrated(tmp_path)
        trainer.tools = [len]  # given to the trainer, they ask for a chat template that can call them
        with pytest.raises(ValueError, match="without tools and outside of any environment"):
            trainer.calibrate()

    def test_no_prompts(self, tmp_path):
        trainer = self.calibrated(tmp_path)
        trainer.train_dataset = tasks().select([])
        with pytest.raises(ValueError, match=r"hybrid_calibration_prompts = 10 prompts .* it has none"):
            trainer.calibrate()

    def test_no_two_scores_that_differ(self, tmp_path):
        trainer = self.calibrated(tmp_path, scores=[1.0] * 8)
        with pytest.raises(ValueError, match="at least two finite scores that differ"):
            trainer.train()


class TestBadInput:
    @pytest.mark.parametrize(("given", "missing"), [("verifier", "reward_model"), ("reward_model", "verifier")])
    def test_one_judge_without_the_other(self, tmp_path, given, missing):
        with pytest.raises(ValueError, match=f"no `{missing}`"):
            HybridGRPOTrainer(POLICY, args=config(tmp_path), train_dataset=tasks(), **{given: Judge("judge", [])})

    def test_judges_with_trls_own_config(self, tmp_path):
        with pytest.raises(TypeError, match="HybridGRPOConfig, got GRPOConfig"):
            hybrid_trainer(tmp_path, [], [], args=GRPOConfig(str(tmp_path), use_cpu=True, bf16=False))

    @pytest.mark.parametrize("mode", ["hybrid", "sum"])
    def test_an_aggregation_that_undoes_the_sizes_of_rewards(self, tmp_path, mode):
        args = config(tmp_path, reward_mode=mode, multi_objective_aggregation="normalize_then_sum")
        with pytest.raises(InputError, match=f"reward_mode '{mode}' cannot go with multi_objective_aggregation"):
            hybrid_trainer(tmp_path, [], [], args=args)

    def test_an_aggregation_is_free_where_one_judge_is_optimised(self, tmp_path):
        args = config(tmp_path, reward_mode="verifier", multi_objective_aggregation="normalize_then_sum")
        assert with_weights(args, extras=0).multi_objective_aggregation == "normalize_then_sum"

    def test_two_reward_functions_of_one_name(self, tmp_path):
        with pytest.raises(ValueError, match=r"reward_model.*more than once"):
            hybrid_trainer(tmp_path, [], [], reward_funcs=[Judge("reward_model", [])])

    @pytest.mark.parametrize(
        ("rows", "missing"),
        [
            ({"question": ["q"], "answer": ["1"]}, "prompt and solution are"),
            ({"prompt": ["q"], "answer": ["1"]}, "solution is"),
        ],
    )
    def test_rows_that_were_not_mapped(self, tmp_path, rows, missing):
        judges = {"verifier": MathVerifier(num_workers=1), "reward_model": Judge("reward_model", [])}
        with pytest.raises(ValueError, match=rf"but {missing} missing; they have .*answer.*load_tasks"):
            HybridGRPOTrainer(POLICY, args=config(tmp_path), train_dataset=Dataset.from_dict(rows), **judges)
        with pytest.raises(ValueError, match=rf"{missing} missing"):
            HybridGRPOTrainer(POLICY, None, config(tmp_path), tasks(), eval_dataset=Dataset.from_dict(rows), **judges)
        with pytest.raises(ValueError, match=rf"{missing} missing"):
            HybridGRPOTrainer(POLICY, None, config(tmp_path), tasks(), {"a": Dataset.from_dict(rows)}, **judges)

    def test_of_what_is_given_by_position_the_data_sets_alone_are_looked_at(self, tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(POLICY)
        tokenizer.column_names = ["question"]
        judges = {"verifier": Judge("math_verifier", []), "reward_model": Judge("reward_model", [])}
        trainer = HybridGRPOTrainer(POLICY, None, config(tmp_path), tasks(), tasks(2), tokenizer, **judges)
        assert trainer.processing_class is tokenizer
        assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (4, 2)

    def test_weights_are_for_the_further_functions_only(self, tmp_path):
        with pytest.raises(ValueError, match="0 further reward functions, got 2"):
            hybrid_trainer(tmp_path, [], [], args=config(tmp_path, reward_weights=[1.0, 1.0]))


def weights_of(trainer):
    return {name: value.clone() for name, value in trainer.model.named_parameters()}


class TestDropIn:
    def test_without_judges_trains_as_grpo_trainer_does_to_the_bit(self, tmp_path):
        def length_reward(completions, completion_ids, **kwargs):
            return [len(c[0]["content"]) / len(ids) for c, ids in zip(completions, completion_ids, strict=True)]

        results = []
        for trainer_class in (GRPOTrainer, HybridGRPOTrainer):
            settings = config(tmp_path / trainer_class.__name__, max_steps=2).to_dict()
            args = GRPOConfig(**{k: v for k, v in settings.items() if not k.startswith("hybrid_") and k in _FIELDS})
            trainer = trainer_class(model=POLICY, reward_funcs=length_reward, args=args, train_dataset=tasks())
            trainer.train()
            results.append(weights_of(trainer))
        start = weights_of(GRPOTrainer(model=POLICY, reward_funcs=length_reward, args=args, train_dataset=tasks()))
        assert any(not torch.equal(results[0][name], start[name]) for name in start)
        assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])

    def test_without_judges_a_checkpoint_is_trls_own(self, tmp_path, caplog):
        for steps, checkpoint in ((1, None), (2, str(tmp_path / "checkpoint-1"))):
            args = config(tmp_path, max_steps=steps, save_strategy="steps", save_steps=1)
            trainer = HybridGRPOTrainer(POLICY, Judge("bonus", SCORES), args, train_dataset=tasks())
            trainer.train(resume_from_checkpoint=checkpoint)
            assert trainer.state.global_step == steps
        assert not list(tmp_path.glob("checkpoint-*/hybrid_state.json"))
        assert "judges" not in caplog.text

    def test_without_judges_every_aggregation_is_trls(self, tmp_path):
        results = []
        for trainer_class in (GRPOTrainer, HybridGRPOTrainer):
            args = config(
                tmp_path / trainer_class.__name__,
                multi_objective_aggregation="normalize_then_sum",
                shared_prompts=False,  # sums in another order
            )
            first, second = Judge("first", SCORES), Judge("second", VERDICTS)
            trainer = trainer_class(model=POLICY, reward_funcs=[first, second], args=args, train_dataset=tasks())
            trainer.train()
            results.append(weights_of(trainer))
        assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])

    def test_without_judges_the_model_card_is_not_this_methods(self, tmp_path):
        trainer = HybridGRPOTrainer(POLICY, Judge("bonus", []), config(tmp_path), tasks())
        assert (trainer._name, trainer._tag_names, trainer._paper["id"]) == ("GRPO", ["trl", "grpo"], "2402.03300")
        assert "hybrid-reward" not in trainer.model.model_tags


_FIELDS = {
    "output_dir", "num_generations", "per_device_train_batch_size", "max_completion_length", "max_steps",
    "learning_rate", "gradient_checkpointing", "save_strategy", "use_cpu", "disable_tqdm", "logging_steps", "bf16",
}  # fmt: skip


class PrefersSevens:
    """Right is what holds a 7: the tiny policy can learn it in one step."""

    __name__ = "math_verifier"

    def __call__(self, completions, **kwargs):
        return [float("7" in c[0]["content"]) for c in completions]


class TestLearning:
    @pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
    def test_one_step_makes_well_paid_completions_likelier(self, tmp_path, lora):
        scores = Judge("reward_model", [float(i) for i in range(32)])
        peft_config = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
        trainer = HybridGRPOTrainer(
            POLICY,
            args=config(tmp_path, per_device_train_batch_size=32, num_generations=8, learning_rate=1e-3),
            train_dataset=tasks(8),
            verifier=PrefersSevens(),
            reward_model=scores,
            peft_config=peft_config,
        )
        kept = {}
        original = trainer._generate_and_score_completions

        def keep(inputs):
            kept.update(original(inputs))
            return dict(kept)

        trainer._generate_and_score_completions = keep
        before = weights_of(trainer)
        trainer.train()
        after = weights_of(trainer)
        moved = [name for name in before if not torch.equal(before[name], after[name])]
        assert moved
        assert all("lora_" in name for name in moved) is lora

        def log_probabilities():
            ids = torch.cat([kept["prompt_ids"], kept["completion_ids"]], dim=1)
            mask = torch.cat([kept["prompt_mask"], kept["completion_mask"]], dim=1)
            with torch.no_grad():
                logps, *_ = trainer._get_per_token_logps_and_entropies(
                    trainer.model, ids, mask, kept["completion_ids"].shape[1]
                )
            return (logps * kept["completion_mask"]).sum(dim=1)

        new = log_probabilities()
        trainer.model.load_state_dict({**trainer.model.state_dict(), **before})
        gained = new - log_probabilities()
        assert (kept["advantages"].abs() > 0).any()
        assert (gained * kept["advantages"]).sum() > 0


class TestSeam:
    """What is used of TRL's private parts; a TRL release that moves them shows here first."""

    @pytest.mark.parametrize(("name", "given"), (HANDED_ON | METHODS).items())
    def test_methods_begin_with_these_parameters(self, name, given):
        parameters = list(inspect.signature(getattr(GRPOTrainer, name)).parameters)
        assert tuple(parameters[: len(given) + 1]) == ("self", *given)

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            (
                {"_calculate_rewards": None},
                r"no _calculate_rewards\(inputs, prompts, completions, completion_ids_list\)",
            ),
            ({"_log_metric": lambda self, metric, value: None}, r"no _log_metric\(name, value\)"),
            ({"_generate": lambda self, prompts, images: None}, r"no _generate\(prompts\)"),
            (
                {"_save_rng_state": None, "_save_checkpoint": lambda self, trial, model: None},
                r"no _save_rng_state\(output_dir\), _save_checkpoint\(model, trial\)",
            ),
        ],
        ids=["gone", "renamed", "needs more", "several"],
    )
    def test_a_trl_that_lacks_one_is_refused_with_the_versions_and_the_command(self, changed, named):
        with pytest.raises(InputError, match=named) as error:
            check_methods(type("Newer", (GRPOTrainer,), changed))
        assert re.search(r"tested: transformers 5\S+, trl 1\S+ Run: pip install 'transformers==5", str(error.value))

    def test_what_a_newer_one_offers_besides_is_no_fault(self):
        def with_default(self, prompts, images=None, **kwargs):
            return None

        def with_more(self, inputs, prompts, completions, completion_ids_list, images):
            return None  # handed on

        def wrapped(self, *args, **kwargs):
            return None

        newer = {"_generate": with_default, "_calculate_rewards": with_more, "_save_checkpoint": wrapped}
        check_methods(type("Newer", (GRPOTrainer,), newer))

    def test_it_is_refused_when_the_trainer_is_built_and_only_with_judges(self, tmp_path, monkeypatch):
        monkeypatch.setattr(GRPOTrainer, "_log_metric", None)
        with pytest.raises(InputError, match=r"has no _log_metric\(name, value\)"):
            hybrid_trainer(tmp_path, [], [])
        HybridGRPOTrainer(POLICY, Judge("bonus", []), config(tmp_path), train_dataset=tasks())

    def test_what_a_built_trainer_lacks_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("trl_hybrid.training.seams.ATTRIBUTES", ("_step", "_gone"))
        monkeypatch.setattr("trl.trainer.utils.RepeatSampler", lambda *args, **kwargs: SimpleNamespace(shuffle=True))
        with pytest.raises(InputError, match=r"no _gone, RepeatSampler\.generator, RepeatSampler\.num_samples\."):
            hybrid_trainer(tmp_path, [], [])

    def test_the_versions_named_as_tested_are_the_constraints(self):
        pinned = dict(line.split("==") for line in Path("constraints.txt").read_text().splitlines() if "==" in line)
        assert {name: pinned[name] for name in TESTED} == TESTED

    @pytest.mark.parametrize("judges", [True, False])
    def test_arguments_that_a_newer_trl_adds_reach_it(self, tmp_path, monkeypatch, judges):
        if judges:
            trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        else:
            trainer = HybridGRPOTrainer(POLICY, Judge("bonus", SCORES), config(tmp_path), train_dataset=tasks())
        given, original = [], GRPOTrainer._calculate_rewards

        def newer(self, inputs, prompts, completions, completion_ids_list, images, *, audio):
            given.append((images, audio))
            return original(self, inputs, prompts, completions, completion_ids_list)

        monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", newer)
        prompts = [[{"role": "user", "content": "q"}]] * 4
        inputs = [{"prompt": prompt, "solution": "1"} for prompt in prompts]
        rewards = trainer._calculate_rewards(inputs, prompts, prompts, [[2]] * 4, "images", audio="audio")
        assert rewards.shape == (4, 3 if judges else 1)
        assert given == [("images", "audio")]

        monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", lambda self, *args, **named: (args, named))
        handed_on = trainer._generate_and_score_completions(inputs, "images", audio="audio")
        assert handed_on == ((inputs, "images"), {"audio": "audio"})

    def test_generate_gives_token_ids_and_messages(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        prompts = [row["prompt"] for row in tasks(2)]
        prompt_ids, completion_ids, _, completions, *_ = trainer._generate(prompts)
        assert [len(part) for part in (prompt_ids, completion_ids, completions)] == [2, 2, 2]
        for ids, (message,) in zip(completion_ids, completions, strict=True):
            assert 1 <= len(ids) <= trainer.max_completion_length
            assert message["content"] == trainer._tokenizer.decode(ids, skip_special_tokens=True)

    def test_what_is_logged_for_a_completion_and_for_a_step_reaches_the_logs(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.train()
        assert list(trainer._logs["extra"]["score"]) == SCORES
        assert metrics(trainer, "hybrid/pass_rate") == [0.25]

    def test_a_checkpoint_is_saved_by_these_methods_in_this_order(self, tmp_path, monkeypatch):
        seen = []

        def record(name, known):
            original = getattr(GRPOTrainer, name)

            def recorded(self, *args):
                seen.append((name, *known(self, *args)))
                return original(self, *args)

            monkeypatch.setattr(GRPOTrainer, name, recorded)

        folder = tmp_path / "checkpoint-1"
        record("save_model", lambda _, out, internal: [Path(out), internal, sorted(os.listdir(out))])
        record("_save_rng_state", lambda _, out: [Path(out), (folder / "trainer_state.json").exists()])
        changes = {"save_strategy": "steps", "save_steps": 1}
        hybrid_trainer(tmp_path, VERDICTS, SCORES, args=config(tmp_path, **changes)).train()
        assert seen == [("save_model", folder, True, []), ("_save_rng_state", folder, False)]
        seen.clear()
        (tmp_path / "mine").mkdir()
        hybrid_trainer(tmp_path, VERDICTS, SCORES).save_model(str(tmp_path / "mine"))
        assert seen == [("save_model", tmp_path / "mine", False, [])]

    def test_a_callback_is_told_of_the_training_sets_sampler_whose_draws_can_be_made_again(self, tmp_path):
        found = []

        class Look(TrainerCallback):
            def on_train_begin(self, args, state, control, **kwargs):
                batches = kwargs["train_dataloader"].batch_sampler
                found.append(getattr(batches, "batch_sampler", batches).sampler)

        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.add_callback(Look())
        trainer.train()
        (sampler,) = found
        assert isinstance(sampler, RepeatSampler)
        assert (sampler.shuffle, sampler.num_samples) == (True, 4)
        again = torch.Generator()
        again.set_state(sampler.generator.get_state())
        for _ in range(2):  # each epoch draws once, as `replay_shuffles` does
            assert list(sampler)[::4] == torch.randperm(4, generator=again).tolist()

    @pytest.mark.parametrize("layer", [LlamaDecoderLayer, Qwen2DecoderLayer, Qwen3DecoderLayer])
    def test_decoder_layers_take_what_a_streamed_pass_gives_them(self, layer):
        parameters = inspect.signature(layer.forward).parameters
        assert list(parameters)[:2] == ["self", "hidden_states"]
        assert {"attention_mask", "position_ids", "position_embeddings"} <= parameters.keys()
        assert any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())  # `packing`
        needed = [name for name, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        assert needed == ["self", "hidden_states"]
        assert layer.__name__.removesuffix("DecoderLayer").lower() in PACKABLE

    def test_the_varlen_kernel_takes_cumulative_lengths_a_scale_and_a_window(self):
        parameters = inspect.signature(varlen.varlen_attn).parameters
        first = ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
        assert list(parameters)[:7] == first
        assert {"scale", "window_size"} <= parameters.keys()

    def test_generation_is_counted_in_steps_and_buffered(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        assert (trainer._step, trainer._buffered_inputs, trainer.num_iterations) == (0, None, 1)
        trainer.train()
        assert (trainer._step, len(trainer._buffered_inputs)) == (1, 1)
        assert len(trainer._logs["advantages"]) == trainer.args.generation_batch_size

    def test_a_steps_times_are_among_what_is_logged(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.train()
        logged = next(row for row in trainer.state.log_history if "reward" in row)
        assert 0 < logged["time/judging"] < logged["time/judging"] + logged["time/generation"] < logged["step_time"]
        assert logged["time/update"] > 0

    def test_trl_calls_it_with_contiguous_groups_and_multiplies_by_the_weights(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.train()
        call = trainer.reward_model.calls[0]
        assert len(call.prompts) == 8
        assert all(call.prompts[i] == call.prompts[i // 4 * 4] for i in range(8))
        assert call.prompts[0] != call.prompts[4]
        assert call.solution[0] == call.solution[3]
        logged = next(row for row in trainer.state.log_history if "reward" in row)
        hybrid = list(trainer._logs["rewards"]["hybrid_reward"])
        assert logged["reward"] == pytest.approx(sum(hybrid) / 8, abs=1e-6)

    def test_placeholder_alone_is_nan_until_it_is_filled(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        prompts = [[{"role": "user", "content": "q"}]] * 4
        inputs = [{"prompt": p, "solution": "1", "completion_truncated": False} for p in prompts]
        raw = GRPOTrainer._calculate_rewards(trainer, inputs, prompts, prompts, [[2]] * 4)
        assert raw.shape == (4, 3)
        assert raw[:, 2].isnan().all()


class TestRealJudges:
    @pytest.fixture
    def judges(self):
        with MathVerifier(num_workers=1) as verifier:
            yield {"verifier": verifier, "reward_model": RewardModel("data/embedded_reward_model")}

    def test_both_are_plain_reward_functions_of_the_stock_trainer(self, tmp_path, judges):
        args = config(tmp_path)
        trainer = GRPOTrainer(POLICY, list(judges.values()), args, train_dataset=tasks())
        trainer.train()
        paid = trainer._logs["rewards"]
        assert set(paid["math_verifier"]) <= {0.0, 1.0}
        assert len(set(paid["reward_model"])) > 1

    def test_the_table_says_what_each_completion_was_paid_and_why(self, tmp_path, judges):
        args = config(tmp_path, max_completion_length=64, log_completions=True, num_completions_to_print=0)
        trainer = HybridGRPOTrainer(POLICY, args=args, train_dataset=tasks(), **judges)
        trainer.train()
        table = pd.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
        assert len(table) == 8
        for row in table.to_dict("records"):
            verdict = judges["verifier"].verify("", row["completion"][0]["content"], row["gold"])
            assert row["math_verifier"] == row["verdict"] == float(verdict.correct)
            assert row["score"] == row["reward_model"]
            assert (row["hybrid_reward"] > 0.5) is verdict.correct
        judged = table["prompt"].map(lambda prompt: prompt[0]["content"]) + " " + table["gold"]
        assert set(judged) <= {f"What is {i} + {i}? {2 * i}" for i in range(4)}
