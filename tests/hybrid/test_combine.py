"""The hybrid reward's arithmetic, by hand, and its invariants over generated groups."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_hybrid.hybrid.combine import combine_hybrid_score, hybrid_rewards


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
            ({"min_rm": 2.0, "max_rm": 1.0}, "min_rm"),
            ({"max_rm": math.inf}, "max_rm"),
            ({"verl_score": 0.5}, "verdict"),
        ],
    )
    def test_bad_input_names_the_argument(self, arguments, named):
        with pytest.raises(ValueError, match=named):
            combine_hybrid_score(**{"verl_score": 1.0, "rm_score": 0.0, "min_rm": 0.0, "max_rm": 1.0, **arguments})


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


finite = st.floats(-1e6, 1e6)
any_score = st.one_of(finite, st.sampled_from([NAN, math.inf, -math.inf]))
bands = st.tuples(st.floats(0.01, 0.98), st.floats(0.01, 0.98)).filter(lambda b: b[0] + b[1] <= 0.99)


@st.composite
def groups(draw, score=any_score):
    size, count = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    rows = size * count
    verdicts = draw(st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=rows, max_size=rows))
    scores = draw(st.lists(score, min_size=rows, max_size=rows))
    return torch.tensor(verdicts, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64), size


class TestInvariants:
    @given(groups(), bands, st.floats(1e-9, 10.0), st.sampled_from(["middle", "floor"]))
    def test_every_right_answer_is_paid_more_than_every_wrong_one(self, group, band, eps, singleton):
        verdicts, scores, size = group
        paid = hybrid_rewards(verdicts, scores, size, eps, *band, singleton)
        right, wrong = paid[verdicts == 1.0], paid[verdicts == 0.0]
        assert paid.isnan().equal(verdicts.isnan())
        if right.numel() and wrong.numel():
            assert right.min() > wrong.max()

    @given(groups(), st.floats(0.01, 0.99))
    def test_touching_bands_never_cross(self, group, alpha):
        verdicts, scores, size = group
        paid = hybrid_rewards(verdicts, scores, size, 1e-6, alpha, 1.0 - alpha)
        right, wrong = paid[verdicts == 1.0], paid[verdicts == 0.0]
        if right.numel() and wrong.numel():
            assert right.min() >= wrong.max() - 1e-12

    @given(groups(score=finite))
    def test_order_of_the_scores_survives_within_a_stratum(self, group):
        verdicts, scores, size = group
        paid = hybrid_rewards(verdicts, scores, size).view(-1, size)
        for v, s, r in zip(verdicts.view(-1, size), scores.view(-1, size), paid, strict=True):
            for verdict in (0.0, 1.0):
                stratum = r[v == verdict][s[v == verdict].argsort()]
                assert (stratum.diff() >= 0).all()

    @settings(max_examples=50)
    @given(
        groups(score=st.integers(-1000, 1000).map(float)), st.integers(-1000, 1000), st.sampled_from([0.5, 2.0, 8.0])
    )
    def test_shift_changes_nothing_and_scale_changes_nothing_with_eps(self, group, shift, scale):
        verdicts, scores, size = group
        paid = hybrid_rewards(verdicts, scores, size, eps=0.25)
        moved = hybrid_rewards(verdicts, scores * scale + shift, size, eps=0.25 * scale)
        torch.testing.assert_close(moved, paid, equal_nan=True, atol=1e-12, rtol=0)
