"""The difficulty weight by hand, and the running mean that it is measured against."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_hybrid.hybrid.difficulty import (
    DifficultyWeight,
    Saturation,
    check_weight,
    difficulty_weight,
    score_deviation,
    share_at_ends,
)


NAN = math.nan


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


class TestScoreDeviation:
    # Group 0: right 7, 9; wrong 1, 3: mean 5, squares 4 + 16 + 16 + 4. Group 1: one right 5, wrong 0, 0, 3.
    VERDICTS = (1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    SCORES = (7.0, 9.0, 1.0, 3.0, 5.0, 0.0, 0.0, 3.0)

    def test_group_by_hand(self):
        sigma = score_deviation(tensor(self.VERDICTS), tensor(self.SCORES), 4)
        assert sigma.tolist() == pytest.approx([math.sqrt(10.0), math.sqrt(18.0 / 4)])

    def test_stratum_by_hand(self):
        # Group 0: 4 squares of 1. Group 1: 0 for the lone right one; 1 + 1 + 4 for the wrong ones.
        sigma = score_deviation(tensor(self.VERDICTS), tensor(self.SCORES), 4, "stratum")
        assert sigma.tolist() == pytest.approx([1.0, math.sqrt(6.0 / 4)])

    @pytest.mark.parametrize(("spread", "squares"), [("group", 2 / 3), ("stratum", 1 / 2)])
    def test_it_is_computed_in_double_precision_whatever_comes_in(self, spread, squares):
        # Of right 1, wrong 0 and 1: squares of 1/9, 1/9 and 4/9 from their mean; of 1/4 and 1/4 from their own means.
        verdicts, scores = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 1.0])
        sigma = score_deviation(verdicts, scores, 3, spread)
        assert sigma.dtype == torch.float64
        assert sigma.item() == pytest.approx(math.sqrt(squares / 3), rel=1e-12)

    def test_broken_scores_and_unjudgeable_rows_do_not_count(self):
        sigma = score_deviation(tensor([0.0, 0.0, 0.0, NAN]), tensor([1.0, 3.0, math.inf, 50.0]), 4)
        assert sigma.tolist() == [1.0]

    @pytest.mark.parametrize(
        ("verdicts", "scores", "group", "stratum"),
        [
            ([0.0, 0.0], [1.0, NAN], NAN, NAN),
            ([NAN, NAN], [1.0, 2.0], NAN, NAN),
            ([1.0, 0.0], [3.0, 1.0], 1.0, NAN),  # two scores, no two of one verdict
            ([1.0, 1.0], [4.0, 4.0], 0.0, 0.0),
        ],
    )
    def test_unknown_is_nan_and_no_spread_is_zero(self, verdicts, scores, group, stratum):
        arguments = tensor(verdicts), tensor(scores), 2
        assert score_deviation(*arguments, "group").tolist() == pytest.approx([group], nan_ok=True)
        assert score_deviation(*arguments, "stratum").tolist() == pytest.approx([stratum], nan_ok=True)

    @pytest.mark.parametrize("verdict", [0.0, 1.0])
    def test_one_group_may_be_unknown_beside_another(self, verdict):
        sigma = score_deviation(tensor([1.0, 0.0, verdict, verdict]), tensor([3.0, 1.0, 2.0, 6.0]), 2, "stratum")
        assert sigma.tolist() == pytest.approx([NAN, 2.0], nan_ok=True)

    def test_group_of_one_is_unknown(self):
        assert score_deviation(tensor([1.0, 0.0]), tensor([1.0, 2.0]), 1).isnan().all()

    @given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.floats(-100, 100)), min_size=2, max_size=8))
    def test_variance_of_the_group_is_that_within_and_that_between(self, rows):
        verdicts, scores = tensor([v for v, _ in rows]), tensor([s for _, s in rows])
        group = score_deviation(verdicts, scores, len(rows)).item()
        within = score_deviation(verdicts, scores, len(rows), "stratum").nan_to_num(0.0).item()
        means = torch.stack([scores[verdicts == v].mean() for v in verdicts])
        between = means.std(correction=0).item()
        assert group**2 == pytest.approx(within**2 + between**2, rel=1e-6, abs=1e-9)

    def test_unknown_rule(self):
        with pytest.raises(ValueError, match="spread must be 'group' or 'stratum', got 'batch'"):
            score_deviation(tensor([1.0]), tensor([1.0]), 1, "batch")


class TestDifficultyWeight:
    def test_formula_by_hand(self):
        # sigma - sigma_bar = -ln(3) / 2, 0, ln(3) / 2; k = 2: sigmoid = 1/4, 1/2, 3/4
        sigma = tensor([2.0 - math.log(3.0) / 2, 2.0, 2.0 + math.log(3.0) / 2])
        assert difficulty_weight(sigma, 2.0, 0.4, 3.2, k=2.0).tolist() == pytest.approx([1.1, 1.8, 2.5])

    def test_scale_free_by_hand(self):
        # sigma / sigma_bar - 1 = -1, 0, ln(3); k = 1: sigmoid = 1 / (1 + e), 1/2, 3/4
        sigma = tensor([0.0, 10.0, 10.0 * (1.0 + math.log(3.0))])
        weights = difficulty_weight(sigma, 10.0, 1.0, 3.0, k=1.0, scale_free=True)
        assert weights.tolist() == pytest.approx([1.0 + 2.0 / (1.0 + math.e), 2.0, 2.5])

    def test_it_is_computed_in_double_precision_whatever_comes_in(self):
        sigma = torch.tensor([1 / 3], dtype=torch.float32)
        expected = 0.4 + 2.6 / (1.0 + math.exp(-6.0 * (sigma.item() - 1 / 3)))
        assert difficulty_weight(sigma, 1 / 3, 0.4, 3.0, 6.0).tolist() == pytest.approx([expected], rel=1e-12)

    def test_a_mean_of_0_gives_no_unit_and_every_group_the_weight_at_the_mean(self):
        weights = difficulty_weight(tensor([0.0, 2.0]), 0.0, 0.4, 3.0, 6.0, scale_free=True)
        assert weights.tolist() == pytest.approx([1.7, 1.7])

    @pytest.mark.parametrize("scale_free", [False, True])
    def test_unknown_sigma_has_the_weight_at_the_mean(self, scale_free):
        assert difficulty_weight(tensor([NAN]), 5.0, 0.4, 3.0, 6.0, scale_free).tolist() == pytest.approx([1.7])

    @given(
        st.lists(st.floats(0.0, 1e38), min_size=1, max_size=5),
        st.floats(0.0, 1e38),
        st.floats(0.0, 1e38),
        st.booleans(),
    )
    def test_stays_between_its_ends_and_rises_with_sigma(self, sigma, sigma_bar, k, scale_free):
        weights = difficulty_weight(tensor(sorted(sigma)), sigma_bar, 0.4, 3.0, k, scale_free)
        assert ((weights >= 0.4) & (weights <= 3.0 + 1e-12)).all()
        assert (weights.diff() >= 0).all()

    @given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=5), st.floats(0.1, 100.0), st.floats(0.01, 100.0))
    def test_scale_free_does_not_know_the_unit(self, sigma, sigma_bar, unit):
        before = difficulty_weight(tensor(sigma), sigma_bar, 0.4, 3.0, 6.0, scale_free=True)
        after = difficulty_weight(tensor(sigma) * unit, sigma_bar * unit, 0.4, 3.0, 6.0, scale_free=True)
        torch.testing.assert_close(after, before)

    @pytest.mark.parametrize(
        ("w_min", "w_max", "k", "named"),
        [
            (3.0, 0.4, 6.0, r"hybrid_w_max .* at least hybrid_w_min, got 0.4 with hybrid_w_min = 3.0"),
            (0.0, 3.0, 6.0, "hybrid_w_min must be a positive finite number, got 0.0"),
            (NAN, 3.0, 6.0, "hybrid_w_min"),
            (math.inf, math.inf, 6.0, "hybrid_w_min must be a positive finite number, got inf"),
            (0.4, 3.0, math.inf, "hybrid_k must be finite"),
            (0.4, math.inf, 6.0, "hybrid_w_max"),
            (0.4, 3.0, -1.0, "hybrid_k must be finite and not negative, got -1.0"),
            (0.4, 3.0, NAN, "hybrid_k"),
        ],
    )
    def test_bad_settings_name_field_value_and_rule(self, w_min, w_max, k, named):
        with pytest.raises(ValueError, match=named):
            check_weight(w_min, w_max, k, prefix="hybrid_")

    def test_the_plain_names_without_a_prefix(self):
        with pytest.raises(ValueError, match=r"^w_min must be"):
            check_weight(0.0, 3.0, 6.0)
        with pytest.raises(ValueError, match=r"^w_max must be finite and at least w_min,"):
            check_weight(0.4, 0.3, 6.0)
        with pytest.raises(ValueError, match=r"^k must be"):
            check_weight(0.4, 3.0, -1.0)

    @pytest.mark.parametrize(("w_min", "w_max", "k"), [(1.0, 1.0, 6.0), (0.4, 3.0, 0.0), (0.4, 3.0, 0.5)])
    def test_equal_ends_and_any_steepness_from_0_are_settings(self, w_min, w_max, k):
        check_weight(w_min, w_max, k)


class TestSaturation:
    def test_a_twentieth_of_the_way_from_an_end_is_at_it(self):
        # From 1 to 3: up to 1.1 and from 2.9.
        assert share_at_ends(tensor([1.0, 1.09, 1.11, 2.0, 2.89, 2.91, 3.0, 2.5]), 1.0, 3.0) == 0.5

    def test_no_groups_or_equal_ends_tell_nothing(self):
        assert math.isnan(share_at_ends(tensor([]), 1.0, 3.0))
        assert math.isnan(share_at_ends(tensor([1.0]), 1.0, 1.0))

    @pytest.mark.parametrize("mean_one", [False, True])
    def test_groups_of_known_sigma_count_before_they_are_divided_by_their_mean(self, mean_one):
        # sigma 0, 2, 4 and unknown about 2: sigmoid(-3) = 0.047, 1/2, sigmoid(3).
        difficulty = DifficultyWeight(k=1.5, mean_one=mean_one)
        assert math.isnan(difficulty.at_ends)
        difficulty.weigh(tensor([0.0] * 7 + [NAN]), tensor([1.0, 1.0, 0.0, 4.0, 0.0, 8.0, 1.0, 1.0]), 2)
        assert difficulty.at_ends == pytest.approx(2 / 3)

    def test_it_tells_once_when_a_full_window_is_past_one_half(self):
        saturation = Saturation(window=4)
        told = [saturation.update(share) for share in (1.0, NAN, 0.0, 1.0, 0.0, 0.5, 1.0, 0.6, 1.0)]
        # 1 0 1 0 | 0 1 0 .5 | 1 0 .5 1 = 2.5 of 4
        assert told == [False] * 6 + [True, False, False]

    def test_restored_it_goes_on(self):
        first, second = Saturation(window=2), Saturation(window=2)
        assert not first.update(0.9)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert second.update(0.9)
        first.load_state_dict(json.loads(json.dumps(second.state_dict())))
        assert not first.update(0.9)

    def test_a_window_needs_a_step(self):
        with pytest.raises(ValueError, match="window must be at least 1 step, got 0"):
            Saturation(window=0)


# Groups of two wrong answers: sigma is half the difference of the scores.
VERDICTS = tensor([0.0] * 4)


class TestRunningMean:
    def test_first_step_measures_itself(self):
        difficulty = DifficultyWeight(w_min=1.0, w_max=3.0, k=math.log(3.0))
        weights = difficulty.weigh(VERDICTS, tensor([0.0, 2.0, 0.0, 6.0]), 2)
        # sigma = 1 and 3, their mean 2; k * (sigma - 2) = -ln(3) and ln(3)
        assert difficulty.sigma_bar == 2.0
        assert weights.tolist() == pytest.approx([1.5, 1.5, 2.5, 2.5])

    def test_heros_figures_unless_said(self):
        # sigma = 0.5 and 1, their mean 0.75; 6 * (sigma - 0.75) = -1.5 and 1.5
        weights = DifficultyWeight().weigh(VERDICTS, tensor([0.0, 1.0, 0.0, 2.0]), 2)
        assert weights.tolist()[::2] == pytest.approx([0.4 + 2.6 / (1 + math.exp(x)) for x in (1.5, -1.5)])

    def test_100_steps_are_remembered_unless_said(self):
        difficulty = DifficultyWeight()
        for _ in range(100):
            difficulty.update(tensor([1.0]))
        difficulty.update(tensor([102.0]))
        assert difficulty.sigma_bar == pytest.approx(1.0 + 101.0 / 100.0)

    def test_with_a_horizon_of_one_step_only_the_newest_counts(self):
        difficulty = DifficultyWeight(horizon=1)
        for sigma in (1.0, 5.0, 3.0):
            difficulty.update(tensor([sigma]))
            assert difficulty.sigma_bar == sigma

    def test_sigmas_in_single_precision_are_averaged_in_double(self):
        difficulty = DifficultyWeight()
        difficulty.update(torch.tensor([1e8, 1.0, 1.0, 1.0]))
        assert difficulty.sigma_bar == 25_000_000.75

    def test_plain_mean_first_exponential_mean_afterwards(self):
        difficulty = DifficultyWeight(horizon=2)
        seen = []
        for sigma in (1.0, 3.0, 6.0, 0.0):
            difficulty.update(tensor([sigma, sigma]))
            seen.append(difficulty.sigma_bar)
        # 1; (1 + 3) / 2; half of the way to 6; half of the way to 0
        assert seen == [1.0, 2.0, 4.0, 2.0]

    def test_unknown_sigmas_move_nothing(self):
        difficulty = DifficultyWeight()
        difficulty.update(tensor([NAN, NAN]))
        assert difficulty.state_dict() == {"sigma_bar": None, "steps": 0}
        assert difficulty.weights(tensor([NAN])).tolist() == pytest.approx([1.7])
        difficulty.update(tensor([NAN, 4.0]))
        assert difficulty.state_dict() == {"sigma_bar": 4.0, "steps": 1}

    def test_mean_one_divides_by_the_mean_over_groups(self):
        difficulty = DifficultyWeight(w_min=1.0, w_max=3.0, k=math.log(3.0), mean_one=True)
        weights = difficulty.weigh(VERDICTS, tensor([0.0, 2.0, 0.0, 6.0]), 2)
        assert weights.tolist() == pytest.approx([0.75, 0.75, 1.25, 1.25])

    def test_scale_free_measures_in_units_of_the_mean(self):
        difficulty = DifficultyWeight(w_min=1.0, w_max=3.0, k=2.0 * math.log(3.0), scale_free=True)
        # sigma / 2 - 1 = -0.5 and 0.5
        weights = difficulty.weigh(VERDICTS, tensor([0.0, 2.0, 0.0, 6.0]), 2)
        assert weights.tolist() == pytest.approx([1.5, 1.5, 2.5, 2.5])

    def test_before_any_step_the_mean_is_0(self):
        weights = DifficultyWeight(w_min=1.0, w_max=3.0, k=math.log(3.0)).weights(tensor([0.0, 1.0]))
        assert weights.tolist() == pytest.approx([2.0, 2.5])

    def test_stratum_reaches_the_mean(self):
        difficulty = DifficultyWeight(spread="stratum")
        difficulty.weigh(tensor([1.0, 1.0, 0.0, 0.0]), tensor([7.0, 9.0, 1.0, 3.0]), 4)
        assert difficulty.sigma_bar == pytest.approx(1.0)

    def test_restored_in_the_middle_it_goes_on_to_the_bit(self):
        generator = torch.Generator().manual_seed(0)
        steps = [torch.randn(4, generator=generator, dtype=torch.float64) for _ in range(6)]
        unbroken, first, second = (DifficultyWeight(horizon=3) for _ in range(3))
        expected = [unbroken.weigh(VERDICTS, scores, 2) for scores in steps]
        for scores in steps[:3]:
            first.weigh(VERDICTS, scores, 2)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert all(
            torch.equal(second.weigh(VERDICTS, scores, 2), weights)
            for scores, weights in zip(steps[3:], expected[3:], strict=True)
        )
        assert second.state_dict() == unbroken.state_dict()

    @pytest.mark.parametrize(
        ("settings", "named"),
        [({"w_min": 4.0}, "w_max"), ({"spread": "batch"}, "spread"), ({"horizon": 0}, "horizon")],
    )
    def test_bad_settings(self, settings, named):
        with pytest.raises(ValueError, match=named):
            DifficultyWeight(**settings)
