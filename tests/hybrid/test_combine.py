"""The hybrid reward's arithmetic, by hand, and its invariants over generated groups."""

import inspect
import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_hybrid.hybrid.combine import (
    HybridSettings,
    check_bands,
    combine_hybrid_score,
    count_non_finite,
    hybrid_rewards,
    place_in_band,
    read_verdicts,
)


NAN = math.nan


def rewards(verdicts, scores, group_size, **kwargs):
    return hybrid_rewards(torch.tensor(verdicts), torch.tensor(scores), group_size, **kwargs).tolist()


class TestCombineHybridScore:
    def test_seed_settings_by_hand(self):
        # z = (2 - 1) / (5 - 1 + 0.01) = 0.249377; right: 0.5 + 2 * 0.5 * z; wrong: -0.5 + 2 * 0.5 * z
        arguments = {"rm_score": 2.0, "min_rm": 1.0, "max_rm": 5.0, "eps": 0.01, "alpha": 0.5, "beta": 0.5}
        assert combine_hybrid_score(1.0, **arguments) == pytest.approx(0.749377, abs=1e-6)
        assert combine_hybrid_score(0.0, **arguments) == pytest.approx(-0.250623, abs=1e-6)

    def test_positional_order_is_the_seeds(self):
        assert combine_hybrid_score(0.0, 2.0, 1.0, 5.0, 1.0, 0.2, 0.3) == pytest.approx(-0.2 + 0.4 * (1 / 5))
        assert combine_hybrid_score(1.0, 2.0, 1.0, 5.0, 1.0, 0.2, 0.3) == pytest.approx(0.7 + 0.6 * (1 / 5))

    def test_score_outside_the_bounds_stays_in_its_band(self):
        assert combine_hybrid_score(0.0, 1e9, 0.0, 1.0, alpha=0.1) == pytest.approx(0.1)
        assert combine_hybrid_score(1.0, -1e9, 0.0, 1.0, beta=0.1) == pytest.approx(0.9)

    @pytest.mark.parametrize("score", [NAN, math.inf, -math.inf])
    def test_score_that_is_not_finite_takes_the_middle(self, score):
        assert combine_hybrid_score(0.0, score, 0.0, 1.0) == pytest.approx(0.0)
        assert combine_hybrid_score(1.0, score, 0.0, 1.0) == pytest.approx(1.0)

    def test_unjudgeable_is_nan(self):
        assert math.isnan(combine_hybrid_score(NAN, 1.0, 0.0, 1.0))

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"alpha": 0.0}, "alpha"),
            ({"beta": 1.1}, "beta"),
            ({"alpha": 0.6, "beta": 0.6}, "alpha \\+ beta"),
            ({"eps": 0.0}, "eps"),
            ({"eps": NAN}, "eps"),
            ({"min_rm": 2.0, "max_rm": 1.0}, "^min_rm and max_rm must"),
            ({"max_rm": math.inf}, "max_rm"),
            ({"verl_score": 0.5}, "verdict"),
        ],
    )
    def test_bad_input_names_the_argument(self, arguments, named):
        with pytest.raises(ValueError, match=named):
            combine_hybrid_score(**{"verl_score": 1.0, "rm_score": 0.0, "min_rm": 0.0, "max_rm": 1.0, **arguments})


class TestCheckBands:
    @pytest.mark.parametrize(
        ("bands", "message"),
        [
            ((0.0, 0.1, 1e-6), r"^alpha must be above 0 and at most 1, got 0\.0"),
            ((1.5, 0.1, 1e-6), r"^alpha must be above 0 and at most 1, got 1\.5"),
            ((0.1, -0.1, 1e-6), r"^beta must be above 0 and at most 1, got -0\.1"),
            ((1.0, 0.5, 1e-6), r"^alpha \+ beta must be at most 1, got 1\.0 \+ 0\.5 = 1\.5"),
            ((0.1, 0.1, math.inf), r"^eps must be a positive finite number, got inf"),
        ],
    )
    def test_the_broken_rule_is_named(self, bands, message):
        with pytest.raises(ValueError, match=message):
            check_bands(*bands)

    @pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (1.0, 1e-9), (0.1 + 0.2, 0.7)])
    def test_bands_that_touch_are_bands_however_their_sum_is_rounded(self, alpha, beta):
        check_bands(alpha, beta, 1e-6)

    def test_a_prefix_stands_before_every_name(self):
        with pytest.raises(ValueError, match=r"^hybrid_alpha \+ hybrid_beta must"):
            check_bands(0.6, 0.6, 1e-6, prefix="hybrid_")


class TestHybridSettings:
    def test_they_are_the_defaults_of_the_formula(self):
        signature = inspect.signature(hybrid_rewards).parameters
        assert {name: signature[name].default for name in vars(HybridSettings())} == vars(HybridSettings())
        assert list(signature)[3:] == list(vars(HybridSettings()))

    def test_they_cannot_be_changed_unchecked(self):
        settings = HybridSettings(alpha=0.2)
        with pytest.raises(FrozenInstanceError):
            settings.alpha = 2.0
        with pytest.raises(ValueError, match=r"^alpha must be above 0 and at most 1, got 2\.0"):
            replace(settings, alpha=2.0)


class TestHybridRewards:
    def test_strata_by_hand(self):
        # right: scores 4 and 6 -> z 0, 1 -> 0.7, 1.3; wrong: 10, 0, 5 -> z 1, 0, .5 -> 0.1, -0.1, 0
        result = rewards([1.0, 0.0, 1.0, 0.0, 0.0], [4.0, 10.0, 6.0, 0.0, 5.0], 5, eps=1e-12, alpha=0.1, beta=0.3)
        assert result == pytest.approx([0.7, 0.1, 1.3, -0.1, 0.0])

    def test_bounds_come_from_the_own_group_only(self):
        # Two groups of two wrong answers, on very different scales.
        assert rewards([0.0] * 4, [1.0, 2.0, 100.0, 300.0], 2, eps=1e-12) == pytest.approx([-0.1, 0.1, -0.1, 0.1])

    def test_eps_is_added_to_the_spread(self):
        # z of the better one = 2 / (2 + 2) = 0.5
        assert rewards([0.0, 0.0], [1.0, 3.0], 2, eps=2.0) == pytest.approx([-0.1, 0.0])

    @pytest.mark.parametrize(("singleton", "right", "wrong"), [("middle", 1.0, 0.0), ("floor", 0.9, -0.1)])
    def test_stratum_without_spread(self, singleton, right, wrong):
        assert rewards([1.0, 0.0, 0.0], [7.0, 3.0, 3.0], 3, singleton=singleton) == pytest.approx(
            [right, wrong, wrong]
        )

    def test_group_of_one(self):
        assert rewards([1.0, 0.0, NAN], [5.0, 5.0, 5.0], 1) == pytest.approx([1.0, 0.0, NAN], nan_ok=True)

    def test_score_that_is_not_finite_takes_the_middle_and_moves_nobody(self):
        result = rewards([0.0, 0.0, 0.0, 0.0], [1.0, math.inf, 3.0, NAN], 4, eps=1e-12)
        assert result == pytest.approx([-0.1, 0.0, 0.1, 0.0])

    def test_unjudgeable_row_is_nan_and_moves_nobody(self):
        result = rewards([0.0, NAN, 0.0], [1.0, 50.0, 3.0], 3, eps=1e-12)
        assert result == pytest.approx([-0.1, NAN, 0.1], nan_ok=True)

    def test_float32_scores_are_combined_in_float64(self):
        assert hybrid_rewards(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]), 2).dtype == torch.float64

    def test_single_precision_is_left_before_anything_is_computed(self):
        scores = torch.tensor([0.0, 1.0, 3.0])
        paid = hybrid_rewards(torch.zeros(3), scores, 3, eps=1e-6).tolist()
        assert paid[1] == pytest.approx(-0.1 + 0.2 / (3.0 + 1e-6), rel=1e-12)
        placed = place_in_band(torch.zeros(1), torch.tensor([0.75]), 0.1, 0.1)
        assert placed.dtype == torch.float64
        assert placed.item() == -0.1 + 0.2 * 0.75

    def test_matches_the_scalar_form_row_by_row(self):
        verdicts, scores = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0], [0.3, -4.0, 2.0, 8.0, 1.1, 0.0]
        expected = [
            combine_hybrid_score(v, s, *((0.3, 2.0) if v else (-4.0, 8.0)), 0.01, 0.2, 0.4)
            for v, s in zip(verdicts, scores, strict=True)
        ]
        # float32 inputs would round 0.3 and 1.1; the scalar form sees them in double precision.
        doubles = torch.tensor(verdicts, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64)
        assert hybrid_rewards(*doubles, 6, 0.01, 0.2, 0.4).tolist() == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize(
        ("verdicts", "scores", "group_size", "named"),
        [
            ([1.0, 0.0], [1.0], 1, "equal length"),
            ([1.0, 0.0, 1.0], [1.0, 2.0, 3.0], 2, "group_size"),
            ([1.0], [1.0], 0, "group_size"),
            ([2.0], [1.0], 1, "verdict"),
        ],
    )
    def test_bad_input_names_the_rule(self, verdicts, scores, group_size, named):
        with pytest.raises(ValueError, match=named):
            rewards(verdicts, scores, group_size)

    def test_unknown_singleton_rule(self):
        with pytest.raises(ValueError, match="singleton"):
            rewards([1.0], [1.0], 1, singleton="top")


class TestBounds:
    # Group 0: right 2 and 4, wrong 0 and 10. Group 1: right 1 alone, wrong 5, 5 and 9.
    VERDICTS = (1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    SCORES = (2.0, 0.0, 4.0, 10.0, 1.0, 5.0, 5.0, 9.0)

    def paid(self, **kwargs):
        return rewards(self.VERDICTS, self.SCORES, 4, eps=1e-12, **kwargs)

    def test_group_bounds_by_hand(self):
        # z = 0.2, 0, 0.4, 1 and 0, 0.5, 0.5, 1
        expected = [0.94, -0.1, 0.98, 0.1, 0.9, 0.0, 0.0, 0.1]
        assert self.paid(bounds="group") == pytest.approx(expected)

    def test_calibrated_bounds_by_hand(self):
        # Between 1 and 5: z = 0.25, 0, 0.75, 1 and 0, 1, 1, 1; 0, 9 and 10 lie outside and are clamped.
        expected = [0.95, -0.1, 1.05, 0.1, 0.9, 0.1, 0.1, 0.1]
        assert self.paid(bounds="calibrated", calibrated=(1.0, 5.0)) == pytest.approx(expected)

    @pytest.mark.parametrize(("singleton", "right", "wrong"), [("middle", 1.0, 0.0), ("floor", 0.9, -0.1)])
    def test_group_without_spread(self, singleton, right, wrong):
        result = rewards([1.0, 0.0, 0.0], [3.0, 3.0, NAN], 3, singleton=singleton, bounds="group")
        assert result == pytest.approx([right, wrong, 0.0])

    @pytest.mark.parametrize("singleton", ["middle", "floor"])
    def test_lone_member_has_a_place_among_the_group(self, singleton):
        result = rewards([1.0, 0.0, 0.0], [2.0, 1.0, 3.0], 3, eps=1e-12, singleton=singleton, bounds="group")
        assert result == pytest.approx([1.0, -0.1, 0.1])
        result = rewards([1.0, 0.0, 0.0], [3.0, 1.0, 2.0], 3, eps=1e-12, singleton=singleton, bounds="group")
        assert result == pytest.approx([1.1, -0.1, 0.0])

    @pytest.mark.parametrize("singleton", ["middle", "floor"])
    def test_lone_member_has_a_place_in_calibrated_bounds(self, singleton):
        fixed = {"bounds": "calibrated", "calibrated": (0.0, 4.0), "eps": 1e-12, "singleton": singleton}
        assert rewards([1.0, 0.0], [3.0, 3.0], 1, **fixed) == pytest.approx([1.05, 0.05])

    @pytest.mark.parametrize(("score", "right"), [(4.0, 0.9), (5.0, 0.9), (6.0, 1.1)])
    def test_calibrated_bounds_that_are_equal_are_a_step(self, score, right):
        assert rewards([1.0], [score], 1, bounds="calibrated", calibrated=(5.0, 5.0)) == pytest.approx([right])

    @pytest.mark.parametrize("bounds", [{"bounds": "group"}, {"bounds": "calibrated", "calibrated": (1.0, 3.0)}])
    def test_broken_scores_and_unjudgeable_rows_move_nobody(self, bounds):
        result = rewards([0.0, NAN, 1.0, 1.0, 0.0], [1.0, 50.0, 3.0, -math.inf, NAN], 5, eps=1e-12, **bounds)
        assert result == pytest.approx([-0.1, NAN, 1.1, 1.0, 0.0], nan_ok=True)

    @pytest.mark.parametrize("bounds", ["stratum", "group"])
    def test_nothing_finite_takes_the_middle(self, bounds):
        assert rewards([0.0, 1.0], [NAN, math.inf], 2, bounds=bounds, singleton="floor") == pytest.approx([0.0, 1.0])

    @given(
        st.sampled_from([0.0, 1.0, NAN]),
        st.floats(width=32),
        st.tuples(*[st.floats(allow_nan=False, allow_infinity=False, width=32)] * 2).map(sorted),
        st.floats(0.0, 1e38, exclude_min=True),
    )
    def test_calibrated_bounds_are_the_scalar_form(self, verdict, score, fixed, eps):
        doubles = torch.tensor([verdict], dtype=torch.float64), torch.tensor([score], dtype=torch.float64)
        paid = hybrid_rewards(*doubles, 1, eps, bounds="calibrated", calibrated=tuple(fixed)).item()
        assert paid == pytest.approx(combine_hybrid_score(verdict, score, *fixed, eps), abs=0, rel=0, nan_ok=True)

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"bounds": "batch"}, "bounds must be 'stratum', 'group' or 'calibrated', got 'batch'"),
            ({"bounds": "calibrated"}, "go together"),
            ({"calibrated": (0.0, 1.0)}, "go together"),
            ({"bounds": "calibrated", "calibrated": (1.0, 0.0)}, "^The calibrated low and high must"),
            ({"bounds": "calibrated", "calibrated": (0.0, math.inf)}, "^The calibrated low and high must"),
        ],
    )
    def test_bad_bounds_name_the_rule(self, arguments, named):
        with pytest.raises(ValueError, match=named):
            rewards([1.0], [1.0], 1, **arguments)


class TestExtremeScores:
    """The largest and the smallest of TRL's matrix of single-precision numbers."""

    LARGEST, SMALLEST = torch.finfo(torch.float32).max, torch.finfo(torch.float32).smallest_normal

    @pytest.mark.parametrize("bounds", ["stratum", "group"])
    @pytest.mark.parametrize(
        ("scores", "eps", "wrong"),
        [
            # z = 0, 0.5, 1.
            ([-LARGEST, 0.0, LARGEST], 1e-6, [-0.1, 0.0, 0.1]),
            # An eps as large as the spread: z = 0, 1/4, 1/2.
            ([0.0, LARGEST / 2, LARGEST], LARGEST, [-0.1, -0.05, 0.0]),
            # Differences of the smallest numbers there are: z = 0, 1/4, 3/4.
            ([0.0, SMALLEST, 3 * SMALLEST], SMALLEST, [-0.1, -0.05, 0.05]),
            # A spread of one in the last place of a large number: z = 0, 0, 1.
            ([1e16, 1e16, 1e16 + 2.0], 1e-6, [-0.1, -0.1, 0.1]),
        ],
    )
    def test_by_hand(self, scores, eps, wrong, bounds):
        doubles = torch.zeros(3, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64)
        assert hybrid_rewards(*doubles, 3, eps, bounds=bounds).tolist() == pytest.approx(wrong, abs=1e-7)

    def test_scalar_form(self):
        assert combine_hybrid_score(1.0, 0.0, -self.LARGEST, self.LARGEST) == pytest.approx(1.0)
        assert combine_hybrid_score(1.0, self.LARGEST, -self.LARGEST, 0.0) == pytest.approx(1.1)


class TestReadVerdicts:
    def test_pay_for_the_form_alone_is_wrong(self):
        paid = torch.tensor([5.0, 5.5, 4.9, 0.0, NAN])
        assert read_verdicts(paid, 5.0).tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0, NAN], nan_ok=True)

    @pytest.mark.parametrize("correct_reward", [0.1, 0.3, 0.7])
    def test_single_precision_pay_equals_double_precision_rule(self, correct_reward):
        assert read_verdicts(torch.tensor([correct_reward], dtype=torch.float32), correct_reward).item() == 1.0

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_each_precision_is_compared_and_answered_in_itself(self, dtype):
        verdicts = read_verdicts(torch.tensor([0.1, 0.05, NAN], dtype=dtype), 0.1)
        assert verdicts.dtype == dtype
        assert verdicts.tolist() == pytest.approx([1.0, 0.0, NAN], nan_ok=True)

    def test_a_right_answer_is_paid_1_unless_said(self):
        assert read_verdicts(torch.tensor([1.0, 0.99, 2.0])).tolist() == [1.0, 0.0, 1.0]


class TestCountNonFinite:
    def test_one_row_or_one_percent_is_put_up_with(self):
        assert count_non_finite(torch.tensor([1.0, NAN])) == 1
        assert count_non_finite(torch.tensor([1.0] * 198 + [NAN, math.inf])) == 2

    @pytest.mark.parametrize(("broken", "rows"), [(2, 2), (2, 199), (3, 299)])
    def test_more_is_refused(self, broken, rows):
        with pytest.raises(ValueError, match=f"^{broken} of {rows} reward model scores are NaN or infinite"):
            count_non_finite(torch.tensor([1.0] * (rows - broken) + [NAN, math.inf, -math.inf][:broken]))


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
any_score = st.floats(width=32)  # NaN, infinities and subnormal numbers included
modes = st.one_of(
    st.sampled_from([{"bounds": "stratum"}, {"bounds": "group"}]),
    st.tuples(finite, finite).map(lambda pair: {"bounds": "calibrated", "calibrated": tuple(sorted(pair))}),
)
all_eps = st.one_of(st.floats(1e-9, 10.0), st.floats(0.0, 1e38, exclude_min=True))
singletons = st.sampled_from(["middle", "floor"])
bands = st.tuples(st.floats(0.01, 0.98), st.floats(0.01, 0.98)).filter(lambda b: b[0] + b[1] <= 0.99)


@st.composite
def groups(draw, score=any_score):
    size, count = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    rows = size * count
    verdicts = draw(st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=rows, max_size=rows))
    scores = draw(st.lists(score, min_size=rows, max_size=rows))
    return torch.tensor(verdicts, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64), size


class TestInvariants:
    @settings(max_examples=300)
    @given(groups(), bands, all_eps, singletons, modes)
    def test_every_right_answer_is_paid_more_than_every_wrong_one(self, group, band, eps, singleton, mode):
        verdicts, scores, size = group
        paid = hybrid_rewards(verdicts, scores, size, eps, *band, singleton, **mode)
        right, wrong = paid[verdicts == 1.0], paid[verdicts == 0.0]
        assert paid.isnan().equal(verdicts.isnan())
        if right.numel() and wrong.numel():
            assert right.min() > wrong.max()

    @given(groups(), st.floats(0.01, 0.99), all_eps, modes)
    def test_touching_bands_never_cross(self, group, alpha, eps, mode):
        verdicts, scores, size = group
        paid = hybrid_rewards(verdicts, scores, size, eps, alpha, 1.0 - alpha, **mode)
        right, wrong = paid[verdicts == 1.0], paid[verdicts == 0.0]
        if right.numel() and wrong.numel():
            assert right.min() >= wrong.max()

    @settings(max_examples=300)
    @given(groups(score=finite), bands, all_eps, singletons, modes)
    def test_order_of_the_scores_survives_within_a_stratum(self, group, band, eps, singleton, mode):
        verdicts, scores, size = group
        paid = hybrid_rewards(verdicts, scores, size, eps, *band, singleton, **mode).view(-1, size)
        for v, s, r in zip(verdicts.view(-1, size), scores.view(-1, size), paid, strict=True):
            for verdict in (0.0, 1.0):
                stratum = r[v == verdict][s[v == verdict].argsort()]
                assert (stratum.diff() >= 0).all()

    @given(
        groups(score=st.one_of(st.integers(-1000, 1000).map(float), st.sampled_from([NAN, math.inf, -math.inf]))),
        st.integers(-1000, 1000),
        st.sampled_from([0.5, 2.0, 3.0, 1e-30, 1e30]),
        singletons,
        st.sampled_from(["stratum", "group", "calibrated"]),
    )
    def test_shift_changes_nothing_and_scale_changes_nothing_with_eps(self, group, shift, scale, singleton, bounds):
        verdicts, scores, size = group

        def paid(move, eps):
            fixed = {"calibrated": (move(-500.0), move(700.0))} if bounds == "calibrated" else {}
            return hybrid_rewards(verdicts, move(scores), size, eps, singleton=singleton, bounds=bounds, **fixed)

        before = paid(lambda score: score, 0.25)
        shifted = paid(lambda score: score + shift, 0.25)
        scaled = paid(lambda score: score * scale, 0.25 * scale)
        torch.testing.assert_close(shifted, before, equal_nan=True, atol=1e-12, rtol=0)
        torch.testing.assert_close(scaled, before, equal_nan=True, atol=1e-12, rtol=0)

    @given(groups(), modes, st.randoms(use_true_random=False))
    def test_order_of_the_rows_within_a_group_does_not_matter(self, group, mode, random):
        verdicts, scores, size = group
        order = [g * size + i for g in range(len(verdicts) // size) for i in random.sample(range(size), size)]
        paid = hybrid_rewards(verdicts, scores, size, **mode)
        assert torch.equal(
            hybrid_rewards(verdicts[order], scores[order], size, **mode).nan_to_num(9.0), paid[order].nan_to_num(9.0)
        )
