"""How scores order answers, against loops, numbers worked by hand and figures that must come out."""

from math import exp, isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_hybrid.evaluation.ranking import (
    ScoredGroup,
    accuracy_by_length,
    auc,
    calibration_error,
    length_correlation,
    rank_correlation,
    ranking_figures,
)


def group(scores, right, lengths=None, votes=None, whole=None):
    count = len(scores)
    return ScoredGroup(scores, right, lengths or [10] * count, votes or [1] * count, whole or [True] * count)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=12))
def test_auc_is_mann_whitney_from_ranks(answers):
    """AUC = (rank sum of the right - n (n + 1) / 2) / (n m), ranks of ties shared."""
    scores, right = [score for score, _ in answers], [verdict for _, verdict in answers]
    n, m = sum(right), len(right) - sum(right)
    ranks = [sum(o < s for o in scores) + (sum(o == s for o in scores) + 1) / 2 for s in scores]
    if n == 0 or m == 0:
        assert isnan(auc(scores, right))
    else:
        rank_sum = sum(rank for rank, verdict in zip(ranks, right, strict=True) if verdict)
        assert auc(scores, right) == pytest.approx((rank_sum - n * (n + 1) / 2) / (n * m))


def test_accuracy_is_told_by_what_the_right_answers_length_is():
    """Pairs (right, wrong): (10, 20) won, (10, 8) tied, (10, 10) lost; 50 and 48 are alike."""
    scored = group([1.0, 0.0, 1.0, 2.0], [True, False, False, False], lengths=[10, 20, 8, 10])
    assert accuracy_by_length(scored) == {"shorter": 1.0, "same": 0.0, "longer": 0.5}
    alike = accuracy_by_length(group([1.0, 0.0], [True, False], lengths=[50, 48]))
    assert alike["same"] == 1.0
    assert isnan(alike["shorter"])


def test_a_score_that_is_length_is_found_out():
    """It ranks the longer answer first, right or wrong."""
    lengths, right = [10, 20, 30, 40, 25], [True, False, False, False, True]
    by_length = group([float(length) for length in lengths], right, lengths)
    assert accuracy_by_length(by_length) == {
        "shorter": 0.0,
        "same": pytest.approx(float("nan"), nan_ok=True),
        "longer": 1.0,
    }
    assert length_correlation(by_length) == 1.0  # of the three wrong ones; two right ones are too few


def test_correlation_with_length_is_of_answers_with_the_same_verdict():
    """Right ones are longer and score higher, but among equals the shorter scores higher: -1, not +."""
    scored = group([5, 4, 3, 2, 1, 0], [True] * 3 + [False] * 3, lengths=[20, 21, 22, 10, 11, 12])
    assert length_correlation(scored) == pytest.approx(-1.0)
    assert rank_correlation([5, 4, 3, 2, 1, 0], [20, 21, 22, 10, 11, 12]) > 0
    assert isnan(length_correlation(group([1, 2, 3], [True] * 3)))  # all of one length


def test_confidence_is_compared_with_accuracy_bin_by_bin():
    """Two pairs of confidence 0.9 (d = ln 9), one in order: gap 0.4. Two of 0.55, both in order: gap 0.45."""
    sure, unsure = 2.1972245773362196, 0.2006706954621511
    assert 1 / (1 + exp(-sure)) == pytest.approx(0.9)
    assert 1 / (1 + exp(-unsure)) == pytest.approx(0.55)
    assert calibration_error([sure, -sure, unsure, unsure], bins=5) == pytest.approx((2 * 0.4 + 2 * 0.45) / 4)
    assert isnan(calibration_error([]))


def test_figures_are_means_over_problems_with_both_kinds_of_answers():
    perfect = group([1.0, 0.0], [True, False], lengths=[10, 20], votes=[1, 2])
    reversed_ = group([0.0, 1.0, -1.0], [True, False, False], [10, 20, 30], [2, 1, 1], whole=[True, True, False])
    all_wrong = group([0.0, 1.0], [False, False])
    figures = ranking_figures([perfect, reversed_, all_wrong])
    assert figures["auc"]["value"] == pytest.approx((1.0 + 0.5) / 2)
    assert figures["auc"]["problems"] == 2
    assert figures["auc_whole"]["value"] == pytest.approx((1.0 + 0.0) / 2)
    assert figures["auc_votes"]["value"] == pytest.approx((0.0 + 1.0) / 2)
    assert figures["auc_brevity"]["value"] == 1.0
    assert figures["right_shorter"]["value"] == pytest.approx((1.0 + 0.5) / 2)
    assert figures["right_longer"] == {"value": None, "low": None, "high": None, "problems": 0}
    assert figures["auc"]["low"] <= 0.75 <= figures["auc"]["high"]
    assert ranking_figures([all_wrong]) == {}
