"""From judged samples to figures, with numbers worked by hand."""

import math

import pytest

from trl_hybrid.evaluation.statistics import compare_models, counts, is_judged, problem_values, same_answer, summarize


def sample(answer, correct, boxed=True, strict=None, **more):
    return {
        "completion": "", "truncated": False, "answer": answer, "correct": correct, "boxed": boxed,
        "strict": (correct and boxed) if strict is None else strict, **more,
    }  # fmt: skip


# 7 is right: twice in a box, once not; 8 is wrong.
SAMPLES = [sample("7", True, score=1.0), sample("8", False, score=3.0), sample("7.0", True, boxed=False, score=2.0),
           sample("8", False, score=-1.0)]  # fmt: skip
ROW = {"prompt": [], "solution": "7", "samples": SAMPLES, "greedy": sample("7", True, boxed=False)}


def test_values_of_one_problem():
    assert problem_values(ROW, "lenient") == {
        "greedy": 1.0,
        "mean_of_4": 0.5,
        "pass@1": 0.5,
        "pass@2": pytest.approx(5 / 6),  # of six pairs only the two wrong ones hold no right answer
        "pass@4": 1.0,
        "majority_of_4": 0.5,  # 7 and 7.0 are one candidate: two votes each
        "best_of_4": 0.0,
    }


def test_strict_takes_only_boxes():
    strict = problem_values(ROW, "strict")
    assert (strict["greedy"], strict["mean_of_4"], strict["pass@2"]) == (0.0, 0.25, pytest.approx(0.5))
    assert strict["majority_of_4"] == 0.0  # the unboxed 7.0 does not vote


def test_an_answer_outside_a_box_has_no_strict_vote():
    row = {"samples": [sample("7", True), sample("7", True, boxed=False), sample("8", False)]}
    assert problem_values(row, "lenient")["majority_of_3"] == 1.0
    assert problem_values(row, "strict")["majority_of_3"] == 0.5


def test_strict_votes_do_not_depend_on_the_order_of_the_samples():
    """The gold is 1/2: `0.5` is right leniently, and strictly another, wrong candidate."""
    half, decimal, wrong = sample("1/2", True), sample("0.5", True, strict=False), sample("3", False)
    for samples in ([decimal, half, wrong], [half, decimal, wrong]):
        row = {"samples": samples}
        assert problem_values(row, "lenient")["majority_of_3"] == 1.0
        assert problem_values(row, "strict")["majority_of_3"] == pytest.approx(1 / 3)


def test_without_scores_or_samples_there_are_no_such_figures():
    row = {"samples": [sample("7", True)], "greedy": sample("7", True)}
    assert set(problem_values(row, "lenient")) == {"greedy", "mean_of_1", "pass@1", "majority_of_1"}
    assert problem_values({"samples": [], "greedy": sample("7", True)}, "lenient") == {"greedy": 1.0}


def test_a_problem_that_cannot_be_judged_counts_nowhere():
    unjudged = {**ROW, "samples": [*SAMPLES[:3], sample("8", None)]}
    assert is_judged(ROW)
    assert not is_judged(unjudged)
    assert summarize([ROW, unjudged]) == summarize([ROW])
    assert counts([ROW, unjudged])["unjudgeable"] == 1
    assert summarize([unjudged]) == {"lenient": {}, "strict": {}}


@pytest.mark.parametrize("missing", ["correct", "strict"])
@pytest.mark.parametrize("where", ["greedy", "samples"])
def test_a_missing_verdict_of_either_kind_on_any_answer_is_enough(missing, where):
    whole = {"samples": [sample("7", True), sample("8", False)], "greedy": sample("7", True)}
    assert is_judged(whole)
    place = whole["greedy"] if where == "greedy" else whole["samples"][1]
    place[missing] = None
    assert not is_judged(whole)


def test_a_problem_whose_scores_are_not_numbers_has_no_best_and_does_not_count_in_its_mean():
    unscored = {"samples": [sample("7", True, score=None, nonfinite="nan"), sample("8", False, score=None)]}
    scored = {"samples": [sample("7", True, score=1.0), sample("8", False, score=0.0)]}
    assert math.isnan(problem_values(unscored, "lenient")["best_of_2"])
    assert summarize([unscored])["lenient"]["best_of_2"] == {"value": None, "low": None, "high": None}
    assert summarize([unscored, scored, scored])["lenient"]["best_of_2"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_the_seed_of_the_bootstrap_is_0_unless_given():
    def rows(step):
        return [{"samples": [sample("7", (number * step) % k < 2) for k in (3, 4, 5, 7)]} for number in range(60)]

    one, other = rows(1), rows(3)
    assert summarize(one) == summarize(one, seed=0) != summarize(one, seed=1)
    assert summarize(one, seed=1) == summarize(one, seed=1)
    assert compare_models(one, other) == compare_models(one, other, seed=0) != compare_models(one, other, seed=1)
    assert compare_models(one, other, seed=1) == compare_models(one, other, seed=1)


def test_only_figures_of_both_sides_are_compared():
    before = [{"samples": [sample("8", False)], "greedy": sample("8", False)}]
    after = [{"samples": [sample("7", True)]}]
    assert set(compare_models(before, after)["lenient"]) == {"mean_of_1", "pass@1", "majority_of_1"}
    assert set(compare_models(after, before)["lenient"]) == {"mean_of_1", "pass@1", "majority_of_1"}
    assert compare_models(before, after)["lenient"]["pass@1"]["value"] == 1.0


def test_counts():
    wrong = {"samples": [sample("1", False, truncated=True), sample("2", False, boxed=False)]}
    wrong["samples"][0]["truncated"] = True
    unscored = {"samples": [sample("7", True, score=None, nonfinite="nan"), sample("7", True, score=1.0)]}
    assert counts([ROW, wrong, unscored]) == {
        "problems": 3, "unjudgeable": 0, "never_right": 1, "tied_votes": 2, "samples": 8, "truncated": 1, "unboxed": 2,
        "non_finite_scores": 1,
    }  # fmt: skip


def test_means_over_problems_and_their_differences():
    def rows(*right):
        return [{"samples": [], "greedy": sample("7", bool(correct))} for correct in right]

    before, after = rows(0, 0, 1, 1), rows(0, 1, 1, 1)
    assert summarize(after)["lenient"]["greedy"]["value"] == 0.75
    gain = compare_models(before, after)["lenient"]["greedy"]
    assert gain["value"] == 0.25
    assert 0.0 == gain["low"] < gain["high"] <= 1.0
    # Paired: the same answers differ nowhere, however much the problems differ among themselves.
    assert compare_models(after, after)["lenient"]["greedy"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_figures_and_differences_of_the_strict_verdict_are_its_own():
    right, unboxed, wrong = sample("7", True), sample("7", True, boxed=False), sample("8", False)

    def rows(*greedy):
        return [{"samples": [], "greedy": answer} for answer in greedy]

    before, after = rows(right, wrong, wrong, wrong), rows(right, unboxed, unboxed, wrong)
    assert {verdict: figures["greedy"]["value"] for verdict, figures in summarize(after).items()} == {
        "lenient": 0.75,
        "strict": 0.25,
    }
    assert {verdict: figures["greedy"]["value"] for verdict, figures in compare_models(before, after).items()} == {
        "lenient": 0.5,
        "strict": 0.0,
    }


def test_a_problem_counts_in_a_difference_only_if_both_judge_it():
    good, bad = sample("7", True), sample("8", False)
    before = [{"samples": [], "greedy": row} for row in (bad, sample("7", None))]
    after = [{"samples": [], "greedy": row} for row in (good, bad)]
    assert compare_models(before, after)["lenient"]["greedy"]["value"] == 1.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("7", "7.0", True),
        ("1,000", "1000", True),
        ("x+1", "1+x", False),
        ("None", "None", True),
        ("7", "8", False),
        ("a" * 20_000, "7", False),
    ],
)
def test_votes_are_grouped_by_strings_and_numbers(one, other, same):
    assert same_answer(one, other) is same
