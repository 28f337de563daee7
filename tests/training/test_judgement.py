"""What is remembered of the judges from step to step, and which rows it comes from."""

import json
import math

import pytest
import torch

from trl_hybrid import HybridGRPOConfig
from trl_hybrid.training.judgement import Judgement
from trl_hybrid.training.reward_columns import judges_pay


NAN = math.nan
LENGTHS = torch.tensor([3.0] * 4)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def judgement(folder, **settings):
    return Judgement(HybridGRPOConfig(str(folder), use_cpu=True, report_to="none", **settings))


def figures(judgement, verdicts, scores, training=True):
    return judgement.judge(tensor(verdicts), tensor(scores), LENGTHS, 4, training).figures


class TestUnjudgedRows:
    def test_their_scores_are_no_part_of_the_drift(self, tmp_path):
        judged = judgement(tmp_path)
        for _ in range(10):
            figures(judged, [NAN, 0.0, 0.0, 1.0], [500.0, 1.0, 2.0, 3.0])
        assert judged.drift.reference == pytest.approx(2.0)
        moved = figures(judged, [NAN, 0.0, 0.0, 1.0], [-500.0, 4.0, 5.0, 6.0])
        assert moved["score_drift"] == pytest.approx(3.0)

    def test_their_broken_scores_are_not_counted(self, tmp_path):
        judged = judgement(tmp_path)
        assert figures(judged, [NAN, NAN, 0.0, 1.0], [NAN, math.inf, 2.0, 3.0])["non_finite_scores"] == 0.0
        assert figures(judged, [NAN, NAN, 0.0, 1.0], [NAN, math.inf, NAN, 3.0])["non_finite_scores"] == 1.0


class TestRescuedGroups:
    @pytest.mark.parametrize(
        ("mode", "rescued"), [("hybrid", 1.0), ("verifier", 0.0), ("reward_model", 1.0), ("sum", 1.0), ("gdpo", 1.0)]
    )
    def test_what_is_optimised_decides(self, tmp_path, mode, rescued):
        judged = judgement(tmp_path, reward_mode=mode)
        assert figures(judged, [0.0] * 4, [1.0, 2.0, 3.0, 4.0])["rescued_groups"] == rescued
        assert figures(judged, [1.0] * 4, [2.0] * 4)["rescued_groups"] == 0.0
        assert figures(judged, [1.0, 1.0, 1.0, 0.0], [1.0, 2.0, 3.0, 4.0])["rescued_groups"] == 0.0

    def test_a_row_that_is_left_out_rescues_nothing(self, tmp_path):
        # The broken score is paid the middle of the band in `hybrid`, and left out where scores are optimised.
        rows = [0.0, 0.0, NAN, NAN], [NAN, 1.0, 5.0, 6.0]
        for mode in ("hybrid", "reward_model", "sum"):
            assert figures(judgement(tmp_path, reward_mode=mode), *rows)["rescued_groups"] == 0.0

    def test_the_judges_pay_by_mode(self):
        scores, verdicts, hybrid = tensor([2.0, math.inf, 4.0]), tensor([1.0, 0.0, NAN]), tensor([1.05, -0.1, NAN])
        paid = {
            mode: judges_pay(mode, scores, verdicts, hybrid).tolist()
            for mode in ("hybrid", "verifier", "reward_model", "sum", "gdpo")
        }
        assert paid == {
            "hybrid": pytest.approx([1.05, -0.1, NAN], nan_ok=True),
            "verifier": pytest.approx([1.0, 0.0, NAN], nan_ok=True),
            "reward_model": pytest.approx([2.0, NAN, NAN], nan_ok=True),
            "sum": pytest.approx([3.0, NAN, NAN], nan_ok=True),
            "gdpo": pytest.approx([3.0, NAN, NAN], nan_ok=True),
        }


class TestRecentRanking:
    def test_the_step_jumps_and_the_window_does_not(self, tmp_path):
        judged = judgement(tmp_path)
        mixed = [1.0, 0.0, 0.0, 0.0]
        steps = [figures(judged, mixed, [score, 1.0, 2.0, 3.0]) for score in (0.0, 4.0, 0.0, 4.0)]
        assert [step["auc"] for step in steps] == [0.0, 1.0, 0.0, 1.0]
        assert [step["auc_groups"] for step in steps] == [1.0] * 4
        assert [step["auc_recent"] for step in steps] == pytest.approx([0.0, 1 / 2, 1 / 3, 1 / 2])
        assert [step["auc_recent_groups"] for step in steps] == [1.0, 2.0, 3.0, 4.0]

    def test_evaluation_has_the_steps_own_only(self, tmp_path):
        judged = judgement(tmp_path)
        measured = figures(judged, [1.0, 0.0, 0.0, 0.0], [4.0, 1.0, 2.0, 3.0], training=False)
        assert measured["auc"] == 1.0
        assert "auc_recent" not in measured
        assert figures(judged, [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0])["auc_recent"] == 0.0


class TestState:
    def test_restored_in_the_middle_it_tells_the_same_to_the_bit(self, tmp_path):
        generator = torch.Generator().manual_seed(0)
        steps = [
            (torch.randint(2, (16,), generator=generator).double(), 9 * torch.randn(16, generator=generator).double())
            for _ in range(24)
        ]
        lengths = torch.arange(16.0)
        unbroken, first, second = (judgement(tmp_path) for _ in range(3))
        expected = [unbroken.judge(*step, lengths, 4, True) for step in steps]
        for step in steps[:7]:
            first.judge(*step, lengths, 4, True)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        resumed = [second.judge(*step, lengths, 4, True) for step in steps[7:]]
        assert [one.figures for one in resumed] == [one.figures for one in expected[7:]]
        assert [one.warnings for one in resumed] == [one.warnings for one in expected[7:]]
        # Told after 20 steps, 7 of which came before the stop.
        assert ["switch" in text for one in resumed for text in one.warnings] == [True]

    def test_a_checkpoint_of_an_older_version_starts_the_new_parts_anew(self, tmp_path):
        old = judgement(tmp_path)
        figures(old, [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0])
        state = {name: part for name, part in old.state_dict().items() if name not in ("ranking", "saturation")}
        new = judgement(tmp_path)
        new.load_state_dict(state)
        assert new.weight.steps == 1
        assert figures(new, [1.0, 0.0, 0.0, 0.0], [4.0, 1.0, 2.0, 3.0])["auc_recent_groups"] == 1.0


class TestSettings:
    @pytest.mark.parametrize(("spread", "flag"), [("group", True), ("stratum", False)])
    def test_each_setting_of_the_weight_reaches_it(self, tmp_path, spread, flag):
        made = judgement(
            tmp_path, hybrid_w_min=0.5, hybrid_w_max=1.5, hybrid_k=3.0, hybrid_sigma=spread, hybrid_scale_free=flag,
            hybrid_weight_mean_one=flag,
        ).weight  # fmt: skip
        assert (made.w_min, made.w_max, made.k) == (0.5, 1.5, 3.0)
        assert (made.spread, made.scale_free, made.mean_one) == (spread, flag, flag)

    def test_bands_reach_the_rewards(self, tmp_path):
        judged = judgement(
            tmp_path, hybrid_alpha=0.2, hybrid_beta=0.3, hybrid_eps=1.0, hybrid_singleton="floor"
        ).judge(tensor([1.0, 0.0, 0.0, 0.0]), tensor([9.0, 1.0, 2.0, 3.0]), LENGTHS, 4, True)  # fmt: skip
        # A lone right answer at its floor; z = 0, 1/3 and 2/3 of the wrong ones.
        assert judged.rewards.tolist() == pytest.approx([0.7, -0.2, -0.2 + 0.4 / 3, -0.2 + 0.8 / 3])
        grouped = judgement(tmp_path, hybrid_bounds="group")
        grouped = grouped.judge(tensor([1.0, 0.0, 0.0, 0.0]), tensor([2.0, 0.0, 1.0, 4.0]), LENGTHS, 4, True)
        assert grouped.rewards.tolist() == pytest.approx([1.0, -0.1, -0.05, 0.1], abs=1e-6)

    def test_calibrated_bounds_are_used_and_told_where_they_are_asked_for(self, tmp_path):
        rows = tensor([1.0, 0.0, 0.0, 0.0]), tensor([5.0, 0.0, 2.5, 20.0]), LENGTHS, 4, True
        calibrated, other = judgement(tmp_path, hybrid_bounds="calibrated"), judgement(tmp_path)
        assert calibrated.needs_calibration
        for one in (calibrated, other):
            one.bounds.calibrate(torch.tensor([0.0, 10.0, 4.0]))
            assert not one.needs_calibration
        judged = calibrated.judge(*rows)
        assert judged.rewards.tolist() == pytest.approx([1.0, -0.1, -0.05, 0.1], abs=1e-6)
        assert (judged.figures["rm_min"], judged.figures["rm_max"]) == (0.0, 10.0)
        judged = other.judge(*rows)  # of the wrong ones' own 0 to 20
        assert judged.rewards.tolist() == pytest.approx([1.0, -0.1, -0.075, 0.1], abs=1e-6)
        assert not {"rm_min", "rm_max"} & judged.figures.keys()

    @pytest.mark.parametrize(
        ("weighting", "mode", "there"), [(True, "hybrid", True), (False, "hybrid", False), (True, "verifier", False)]
    )
    def test_only_the_hybrid_reward_is_weighted_and_only_where_it_is_asked_for(self, tmp_path, weighting, mode, there):
        made = judgement(tmp_path, hybrid_difficulty_weighting=weighting, reward_mode=mode)
        assert (made.weight is not None) is there
        assert ("weight" in made.state_dict()) is there
        assert ("saturation" in made.state_dict()) is there


class TestOneStep:
    @pytest.mark.parametrize("training", [True, False])
    def test_a_first_step_alarms_nobody_and_only_training_is_weighted(self, tmp_path, training):
        judged = judgement(tmp_path).judge(
            tensor([1.0, 0.0, 0.0, 0.0]), tensor([2.0, 9.0, 1.0, 3.0]), LENGTHS, 4, training
        )
        assert judged.warnings == ()
        assert torch.equal(judged.columns["difficulty_weight"], torch.ones(4, dtype=torch.float64)) is not training
        assert judged.columns["disagreement"].shape == (4,)
        assert not judged.columns["disagreement"][0]  # a right answer

    def test_the_weights_are_handed_on_and_what_they_stand_on_is_told(self, tmp_path):
        made, rows = judgement(tmp_path), (tensor([1.0, 0.0, 0.0, 0.0]), tensor([2.0, 9.0, 1.0, 3.0]))
        judged = made.judge(*rows, LENGTHS, 4, True)
        assert torch.equal(judged.columns["difficulty_weight"], judgement(tmp_path).weight.weigh(*rows, 4))
        assert judged.figures["sigma_bar"] == made.weight.sigma_bar is not None
        assert judged.figures["weight_saturated"] == made.weight.at_ends
        # Nothing is known of the spread before a group has been judged.
        nothing = judgement(tmp_path).judge(tensor([NAN] * 4), rows[1], LENGTHS, 4, True)
        assert "sigma_bar" not in nothing.figures

    def test_the_alarm_is_told_and_the_state_keeps_its_names(self, tmp_path):
        """Names are what a checkpoint of an earlier version is read by."""
        made = judgement(tmp_path)
        assert figures(made, [1.0, 0.0, 0.0, 0.0], [2.0, 9.0, 1.0, 3.0])["alarm"] == 0.0
        assert made.state_dict().keys() == {"bounds", "ranking", "drift", "alarm", "weight", "saturation"}
