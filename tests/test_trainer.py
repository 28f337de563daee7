"""The trainer's own work: one hybrid column over whole groups, made from two judges' gathered columns."""

import inspect
import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from trl_hybrid import HybridGRPOConfig, HybridGRPOTrainer, MathVerifier, RewardModel
from trl_hybrid.hybrid.combine import combine_hybrid_score


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


VERDICTS = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
SCORES = [2.0, 9.0, 1.0, 4.0, -3.0, -1.0, -2.0, 5.0]


class TestHybridColumn:
    def test_equals_the_scalar_form_over_each_groups_strata(self, tmp_path):
        rewards = calculate(hybrid_trainer(tmp_path, VERDICTS, SCORES), 8)
        # Group 0: right 2..4, wrong 1..9. Group 1: all wrong, -3..5.
        bounds = [(2.0, 4.0), (1.0, 9.0), (1.0, 9.0), (2.0, 4.0)] + [(-3.0, 5.0)] * 4
        expected = [combine_hybrid_score(v, s, *b) for v, s, b in zip(VERDICTS, SCORES, bounds, strict=True)]
        assert rewards[:, 0].tolist() == VERDICTS
        assert rewards[:, 1].tolist() == SCORES
        assert rewards[:, 2].tolist() == pytest.approx(expected, abs=1e-6)

    def test_settings_reach_it(self, tmp_path):
        args = config(tmp_path, hybrid_alpha=0.2, hybrid_beta=0.3, hybrid_eps=1.0, hybrid_singleton="floor")
        rewards = calculate(hybrid_trainer(tmp_path, [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0], args=args), 4)
        # One right answer: its floor. Three wrong ones: z = 0, 1/3, 2/3.
        assert rewards[:, 2].tolist() == pytest.approx([0.7, -0.2, -0.2 + 0.4 / 3, -0.2 + 0.8 / 3], abs=1e-6)

    def test_reads_the_verdict_and_not_the_verifiers_number(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, [5.0, 0.25, 0.0, 0.0], [1.0, 2.0, 2.0, 2.0])
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
        calculate(trainer, 4, ids=[[7, eos], [7, 7], [eos], [7]])
        assert trainer.reward_model.calls[0].completion_truncated == [False, True, False, True]

    def test_verifier_starts_before_the_first_reward_function(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        order = []
        trainer.verifier.prefetch = lambda completions, solutions, prompts: order.append(("prefetch", solutions))
        answers = trainer.reward_model.answers
        trainer.reward_funcs[1] = lambda **kwargs: order.append("score") or answers
        calculate(trainer, 8)
        assert order == [("prefetch", ["1"] * 8), "score"]

    def test_logs_the_share_of_each_kind_of_group(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        calculate(trainer, 8)
        logged = {name: values[0] for name, values in trainer._pending_metrics.items()}
        assert logged["hybrid/pass_rate"] == 0.25
        assert logged["hybrid/mixed_groups"] == 0.5
        assert logged["hybrid/all_wrong_groups"] == 0.5
        assert logged["hybrid/all_right_groups"] == 0.0


class TestWeights:
    def test_judges_weigh_nothing_and_the_callers_objects_stay_as_they_were(self, tmp_path):
        extras, args = [Judge("bonus", [0.0] * 8)], config(tmp_path, reward_weights=[0.5])
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES, reward_funcs=extras, args=args)
        assert trainer.reward_func_names == ["math_verifier", "reward_model", "bonus", "hybrid_reward"]
        assert trainer.reward_weights.tolist() == [0.0, 0.0, 0.5, 1.0]
        assert len(extras) == 1
        assert args.reward_weights == [0.5]

    def test_advantage_is_the_hybrid_reward_less_its_groups_mean(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.train()
        table = trainer._logs
        paid = torch.tensor(table["rewards"]["hybrid_reward"])
        expected = paid.view(2, 4) - paid.view(2, 4).mean(dim=1, keepdim=True)
        assert list(table["advantages"]) == pytest.approx(expected.flatten().tolist(), abs=1e-6)
        assert paid[0] > paid[1] > paid[2]

    def test_default_scaling_keeps_a_group_without_right_answers_quiet(self, tmp_path):
        trainer = hybrid_trainer(tmp_path, VERDICTS, SCORES)
        trainer.train()
        mixed, wrong = torch.tensor(trainer._logs["advantages"]).view(2, 4).abs().mean(dim=1)
        assert wrong < 0.2 * mixed


class TestBadInput:
    def test_one_judge_without_the_other(self, tmp_path):
        with pytest.raises(ValueError, match="no `reward_model`"):
            HybridGRPOTrainer(POLICY, args=config(tmp_path), train_dataset=tasks(), verifier=Judge("v", []))

    def test_judges_with_trls_own_config(self, tmp_path):
        with pytest.raises(TypeError, match="HybridGRPOConfig, got GRPOConfig"):
            hybrid_trainer(tmp_path, [], [], args=GRPOConfig(str(tmp_path), use_cpu=True, bf16=False))

    def test_two_reward_functions_of_one_name(self, tmp_path):
        with pytest.raises(ValueError, match=r"reward_model.*more than once"):
            hybrid_trainer(tmp_path, [], [], reward_funcs=[Judge("reward_model", [])])

    def test_weights_are_for_the_further_functions_only(self, tmp_path):
        with pytest.raises(ValueError, match="0 further reward functions, got 2"):
            hybrid_trainer(tmp_path, [], [], args=config(tmp_path, reward_weights=[1.0, 1.0]))


def weights_of(trainer):
    return {name: value.clone() for name, value in trainer.model.named_parameters()}


class TestDropIn:
    def test_without_judges_trains_as_grpo_trainer_does_to_the_bit(self, tmp_path):
        def length_reward(completions, **kwargs):
            return [float(len(c[0]["content"])) for c in completions]

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

    def test_signatures(self):
        assert list(inspect.signature(GRPOTrainer._calculate_rewards).parameters) == [
            "self", "inputs", "prompts", "completions", "completion_ids_list",
        ]  # fmt: skip
        assert list(inspect.signature(GRPOTrainer._log_metric).parameters) == ["self", "name", "value"]
        assert list(inspect.signature(GRPOTrainer._log_completion_extra).parameters) == ["self", "column", "values"]

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
            assert row["math_verifier"] == float(verdict.correct)
            assert row["score"] == row["reward_model"]
            assert (row["hybrid_reward"] > 0.5) is verdict.correct
        judged = table["prompt"].map(lambda prompt: prompt[0]["content"]) + " " + table["gold"]
        assert set(judged) <= {f"What is {i} + {i}? {2 * i}" for i in range(4)}
