"""The step's figures by hand, the AUC against two loops, and what unjudged rows and broken scores do to them."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_hybrid.hybrid.combine import hybrid_rewards
from trl_hybrid.hybrid.diagnostics import (
    correlation,
    disagreements,
    group_auc,
    group_kinds,
    group_shares,
    judge_diagnostics,
    rescued_groups,
    scores_by_verdict,
    weights_by_kind,
)


NAN = math.nan


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def groups(draw):
    size, count = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    rows = size * count
    verdicts = draw(st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=rows, max_size=rows))
    # Few different scores, so that many tie.
    score = st.one_of(st.integers(-2, 2).map(float), st.floats(width=32))
    return tensor(verdicts), tensor(draw(st.lists(score, min_size=rows, max_size=rows))), size


class TestGroupKinds:
    # mixed; all right; all wrong beside an unjudged row; unjudged
    VERDICTS = (1.0, 0.0, 1.0, 1.0, 0.0, NAN, NAN, NAN)

    def test_kinds(self):
        kinds = {name: chosen.tolist() for name, chosen in group_kinds(tensor(self.VERDICTS), 2).items()}
        assert kinds == {
            "mixed": [True, False, False, False],
            "all_right": [False, True, False, False],
            "all_wrong": [False, False, True, False],
        }

    def test_shares(self):
        assert group_shares(tensor(self.VERDICTS), 2) == {
            "pass_rate": pytest.approx(3 / 5),
            "unjudged": 3 / 8,
            "mixed_groups": 0.25,
            "all_right_groups": 0.25,
            "all_wrong_groups": 0.25,
        }

    def test_weights(self):
        weights = tensor([3.0, 3.0, 0.5, 0.5, 1.0, 1.0, 9.0, 9.0])
        assert weights_by_kind(tensor(self.VERDICTS), weights, 2) == {
            "weight_mixed": 3.0,
            "weight_all_right": 0.5,
            "weight_all_wrong": 1.0,
        }
        lacking = weights_by_kind(tensor([0.0, 0.0]), tensor([2.0, 2.0]), 2)
        assert math.isnan(lacking["weight_mixed"])
        assert lacking["weight_all_wrong"] == 2.0


class TestRescuedGroups:
    def test_only_groups_of_one_verdict_whose_rewards_differ(self):
        # mixed; all wrong, scores differ; all right, scores equal; one judged row; unjudged
        verdicts = tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, NAN, NAN, NAN])
        scores = tensor([1.0, 2.0, 1.0, 2.0, 5.0, 5.0, 1.0, 2.0, 1.0, 2.0])
        assert rescued_groups(verdicts, hybrid_rewards(verdicts, scores, 2), 2) == {
            "rescued_groups": pytest.approx(0.2)
        }


class TestScoresByVerdict:
    def test_by_hand(self):
        figures = scores_by_verdict(tensor([1.0, 1.0, 0.0, 0.0, NAN, 0.0]), tensor([4.0, 6.0, 1.0, 4.0, 99.0, NAN]))
        assert figures == {
            "score_right_mean": 5.0,
            "score_right_std": 1.0,
            "score_wrong_mean": 2.5,
            "score_wrong_std": 1.5,
        }

    def test_single_precision_is_averaged_in_double(self):
        scores = torch.tensor([1e8, 1.0, 1.0, 1.0])
        assert scores_by_verdict(torch.ones(4), scores)["score_right_mean"] == 25_000_000.75
        # Four mixed groups of one right and one wrong answer each.
        verdicts, weights = torch.tensor([1.0, 0.0] * 4), scores.repeat_interleave(2)
        assert weights_by_kind(verdicts, weights, 2)["weight_mixed"] == 25_000_000.75

    def test_no_right_answer(self):
        figures = scores_by_verdict(tensor([0.0]), tensor([3.0]))
        assert list(figures.values()) == pytest.approx([NAN, NAN, 3.0, 0.0], nan_ok=True)


class TestGroupAuc:
    @given(groups())
    def test_equals_two_loops(self, group):
        verdicts, scores, size = group
        expected = []
        for start in range(0, len(verdicts), size):
            rows = [(v, s) for v, s in zip(verdicts.tolist(), scores.tolist(), strict=True)][start : start + size]
            won = [
                1.0 if right > wrong else 0.5 if right == wrong else 0.0
                for (v, right), (w, wrong) in itertools.product(rows, rows)
                if v == 1.0 and w == 0.0 and math.isfinite(right) and math.isfinite(wrong)
            ]
            expected.append(sum(won) / len(won) if won else NAN)
        assert group_auc(verdicts, scores, size).tolist() == pytest.approx(expected, nan_ok=True)

    def test_it_is_in_double_precision_whatever_comes_in(self):
        auc = group_auc(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([2.0, 1.0, 5.0, 6.0]), 4)
        assert auc.dtype == torch.float64
        assert auc.item() == 1 / 3

    @given(groups())
    def test_turned_scores_turn_it(self, group):
        verdicts, scores, size = group
        total = group_auc(verdicts, scores, size) + group_auc(verdicts, -scores, size)
        assert total[~total.isnan()].tolist() == pytest.approx([1.0] * int((~total.isnan()).sum()))


class TestDisagreements:
    def test_wrong_in_the_top_tenth(self):
        # 20 rows: the top tenth is 18 and 19, of which 18 is right.
        verdicts = torch.zeros(20, dtype=torch.float64)
        verdicts[18] = 1.0
        assert disagreements(verdicts, torch.arange(20.0)).nonzero().flatten().tolist() == [19]

    def test_a_tenth_of_20_rows_are_two(self):
        verdicts = torch.zeros(20, dtype=torch.float64)
        assert disagreements(verdicts, torch.arange(20.0)).nonzero().flatten().tolist() == [18, 19]

    def test_few_rows_have_a_top_of_one(self):
        assert disagreements(tensor([1.0, 0.0, 0.0]), tensor([1.0, 2.0, 3.0])).tolist() == [False, False, True]

    def test_ties_with_the_top_belong_to_it(self):
        assert disagreements(tensor([0.0, 0.0, 1.0]), tensor([3.0, 3.0, 1.0])).tolist() == [True, True, False]

    def test_scores_that_say_nothing_disagree_with_nobody(self):
        assert not disagreements(tensor([0.0, 0.0, 1.0]), tensor([3.0, 3.0, 3.0])).any()

    def test_unjudged_rows_and_broken_scores_do_not_count(self):
        mask = disagreements(tensor([NAN, 0.0, 0.0, 1.0]), tensor([9.0, math.inf, 2.0, 1.0]))
        assert mask.tolist() == [False, False, True, False]
        assert not disagreements(tensor([NAN]), tensor([1.0])).any()


class TestCorrelation:
    def test_by_hand(self):
        # Deviations (-1, 0, 1) and (-1, 1, 0): 1 / 2
        assert correlation(tensor([1.0, 2.0, 3.0]), tensor([0.0, 2.0, 1.0])) == pytest.approx(0.5)

    def test_rounding_takes_it_no_further_than_1_and_back_to_minus_1(self):
        generator = torch.Generator().manual_seed(0)
        columns = [torch.randn(7, generator=generator, dtype=torch.float64) for _ in range(200)]
        assert {correlation(column, 3.0 * column) > 1.0 - 1e-12 for column in columns} == {True}
        assert max(correlation(column, 3.0 * column) for column in columns) == 1.0
        assert min(correlation(column, -3.0 * column) for column in columns) == -1.0

    def test_rows_that_are_not_finite_are_left_out(self):
        assert correlation(tensor([1.0, 2.0, NAN, math.inf]), torch.tensor([8, 4, 1, 9])) == pytest.approx(-1.0)

    @pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0], [1.0, NAN]])
    def test_nothing_varies(self, scores):
        assert math.isnan(correlation(tensor(scores), tensor([3.0, 4.0][: len(scores)])))

    def test_huge_and_tiny_scores(self):
        single = torch.tensor([-3e38, 0.0, 3e38]), torch.tensor([1e-38, 2e-38, 3e-38])
        assert correlation(*single) == pytest.approx(1.0)


class TestJudgeDiagnostics:
    def test_by_hand(self):
        # Group 0: right 4, wrong 1 and 9, one unjudged. Group 1: all wrong.
        verdicts, scores = tensor([1.0, 0.0, 0.0, NAN, 0.0, 0.0, 0.0, 0.0]), tensor([4, 1, 9, 50, -3, -1, -2, NAN])
        rewards, lengths = hybrid_rewards(verdicts, scores, 4), 3 * scores + 200
        figures = judge_diagnostics(verdicts, scores, rewards, lengths, disagreements(verdicts, scores), 4)
        assert figures == {
            "pass_rate": pytest.approx(1 / 7),
            "unjudged": 1 / 8,
            "mixed_groups": 0.5,
            "all_right_groups": 0.0,
            "all_wrong_groups": 0.5,
            "rescued_groups": 0.5,
            "score_right_mean": 4.0,
            "score_right_std": 0.0,
            "score_wrong_mean": pytest.approx(0.8),
            "score_wrong_std": pytest.approx(math.sqrt((0.2**2 + 8.2**2 + 3.8**2 + 1.8**2 + 2.8**2) / 5)),
            "auc": 0.5,
            "auc_groups": 1.0,
            "disagreement": pytest.approx(1 / 7),
            "score_length_correlation": pytest.approx(1.0),
        }

    @given(groups())
    def test_any_rows_give_figures_in_their_ranges(self, group):
        verdicts, scores, size = group
        rewards = hybrid_rewards(verdicts, scores, size)
        lengths = torch.arange(len(scores))
        figures = judge_diagnostics(verdicts, scores, rewards, lengths, disagreements(verdicts, scores), size)
        assert all(type(value) is float for value in figures.values())
        assert not any(math.isinf(value) for value in figures.values())
        for name in ("pass_rate", "rescued_groups", "auc", "disagreement"):
            assert math.isnan(figures[name]) or 0.0 <= figures[name] <= 1.0

    def test_nothing_judged(self):
        nothing = tensor([NAN, NAN])
        scores = tensor([1.0, 2.0])
        figures = judge_diagnostics(nothing, scores, nothing, scores, disagreements(nothing, scores), 2)
        assert {name for name, value in figures.items() if value == value} == {
            "unjudged", "mixed_groups", "all_right_groups", "all_wrong_groups", "rescued_groups", "auc_groups",
        }  # fmt: skip
