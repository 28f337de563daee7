"""Figures over samples, against enumeration, numbers worked by hand and the normal theory."""

from itertools import combinations
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_hybrid.evaluation.metrics import best_of, bootstrap_interval, pass_at_k, steps_of_k, vote


@st.composite
def samples_right_k(draw):
    samples = draw(st.integers(1, 9))
    return samples, draw(st.integers(0, samples)), draw(st.integers(1, samples))


@given(samples_right_k())
def test_pass_at_k_is_the_share_of_subsets_of_k_samples_with_a_right_one(case):
    samples, right, k = case
    outcomes = [True] * right + [False] * (samples - right)
    subsets = list(combinations(outcomes, k))
    assert pass_at_k(samples, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@given(samples_right_k())
def test_pass_at_1_is_the_mean_and_pass_at_n_says_whether_any_is_right(case):
    samples, right, _ = case
    assert pass_at_k(samples, right, 1) == pytest.approx(right / samples)
    assert pass_at_k(samples, right, samples) == float(right > 0)


@pytest.mark.parametrize(("samples", "right", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_refuses_what_cannot_be(samples, right, k):
    with pytest.raises(ValueError, match="needs 0 <= right <= samples and 1 <= k <= samples"):
        pass_at_k(samples, right, k)


def test_steps_of_k_end_with_the_number_of_samples():
    assert [steps_of_k(n) for n in (1, 2, 3, 7, 16)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 7], [1, 2, 4, 8, 16]]


class TestVote:
    @pytest.mark.parametrize(
        ("answers", "right", "expected"),
        [
            (["7", "8", "8"], [True, False, False], (0.0, False)),
            (["7", "8", "8", "7"], [True, False, False, True], (0.5, True)),
            (["7", "8", "9"], [True, False, False], (1 / 3, True)),
            ([None, None, "7"], [False, False, True], (1.0, False)),
            ([None, None], [False, False], (0.0, False)),
            ([], [], (0.0, False)),
        ],
    )
    def test_the_commonest_answer_wins_and_ties_share(self, answers, right, expected):
        assert vote(answers, right, str.__eq__) == pytest.approx(expected)

    def test_equal_answers_are_one_candidate(self):
        def same(one, other):
            return float(one) == float(other)

        assert vote(["8", "7", "7.0", "9", "7.00"], [False, True, True, False, True], same) == (1.0, False)
        assert vote(["8", "8", "7", "7.0", "7.00"], [False, False, True, True, True], str.__eq__) == (0.0, False)


class TestBestOf:
    def test_the_highest_score_is_taken(self):
        assert best_of([1.0, 3.0, 2.0], [False, True, False]) == 1.0
        assert best_of([1.0, 3.0, 2.0], [True, False, True]) == 0.0

    def test_equal_scores_share(self):
        assert best_of([3.0, 3.0, 1.0, 3.0], [True, False, True, False]) == pytest.approx(1 / 3)

    def test_what_is_not_finite_is_never_taken_and_nothing_else_is_unknown(self):
        assert best_of([float("inf"), None, float("nan"), -5.0], [True, True, True, False]) == 0.0
        assert best_of([float("nan"), None], [True, True]) is None


class TestBootstrap:
    def test_width_is_that_of_the_normal_interval(self):
        values = np.repeat([0.0, 1.0], [120, 280])[:, None]
        low, high = bootstrap_interval(values)
        half = 1.96 * sqrt(0.7 * 0.3 / 400)
        # 0.045; that of a 90 % interval is 0.038, of a 99 % one 0.059.
        assert [low[0], high[0]] == pytest.approx([0.7 - half, 0.7 + half], abs=0.003)

    def test_problems_are_drawn_whole_so_that_a_constant_difference_has_no_width(self):
        before = np.random.default_rng(0).random(50)
        low, high = bootstrap_interval(np.stack([before, before + 0.25 - before], axis=1))
        assert high[0] - low[0] > 0.1
        assert [low[1], high[1]] == pytest.approx([0.25, 0.25])

    def test_a_missing_value_does_not_count(self):
        values = np.array([[1.0, np.nan], [0.0, np.nan], [np.nan, np.nan]] * 30)
        low, high = bootstrap_interval(values)
        same = bootstrap_interval(np.array([[1.0], [0.0]] * 30))
        assert [low[0], high[0]] == pytest.approx([same[0][0], same[1][0]], abs=0.03)
        assert np.isnan([low[1], high[1]]).all()

    def test_each_mean_is_that_of_the_problems_drawn_as_far_as_they_have_a_value(self):
        values = np.array([[0.0, 5.0], [1.0, 7.0], [2.5, 9.0], [np.nan, 2.0], [np.nan, 1.0], [np.nan, 0.5]])
        rng = np.random.default_rng(3)
        drawn = [values[rng.integers(6, size=6)] for _ in range(40)]
        known = [[column[~np.isnan(column)] for column in draw.T] for draw in drawn]
        sizes = {len(first) for first, _ in known}
        assert {0, 1, 2} < sizes  # among them a draw without any value, and one with a single one
        means = [[column.mean() for column in draw if len(column)] for draw in zip(*known, strict=True)]
        low, high = bootstrap_interval(values, seed=3, resamples=40)
        assert low == pytest.approx([np.percentile(column, 2.5) for column in means])
        assert high == pytest.approx([np.percentile(column, 97.5) for column in means])

    def test_the_seed_decides(self):
        values = np.random.default_rng(0).random((20, 1))
        assert bootstrap_interval(values) == bootstrap_interval(values, seed=0)
        assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
        assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
