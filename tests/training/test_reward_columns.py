"""What each column of TRL's reward matrix weighs, and what is refused before anything is trained."""

import math

import pytest
import torch

from trl_hybrid import HybridGRPOConfig
from trl_hybrid.errors import InputError
from trl_hybrid.training.reward_columns import (
    as_list,
    check_aggregation,
    check_names,
    hybrid_reward,
    judges_pay,
    scores_weigh,
    with_weights,
)


MODES = ("hybrid", "verifier", "reward_model", "sum", "gdpo")


def config(**settings):
    return HybridGRPOConfig("unused", use_cpu=True, report_to="none", **settings)


@pytest.mark.parametrize(
    ("mode", "judges", "hybrid", "scores"),
    [
        ("hybrid", [0.0, 0.0], 1.0, False),
        ("verifier", [0.0, 1.0], 0.0, False),
        ("reward_model", [1.0, 0.0], 0.0, True),
        ("sum", [1.0, 1.0], 0.0, True),
        ("gdpo", [1.0, 1.0], 0.0, True),
    ],
)
def test_weights_of_each_mode_stand_around_those_of_further_functions(mode, judges, hybrid, scores):
    args = config(reward_mode=mode)
    made = with_weights(args, extras=2)
    assert made.reward_weights == [*judges, 1.0, 1.0, hybrid]
    assert with_weights(config(reward_mode=mode, reward_weights=[0.5]), extras=1).reward_weights == [
        *judges, 0.5, hybrid,
    ]  # fmt: skip
    assert scores_weigh(mode) is scores
    assert made.multi_objective_aggregation == ("normalize_then_sum" if mode == "gdpo" else "sum_then_normalize")
    assert (args.reward_weights, args.multi_objective_aggregation) == (None, "sum_then_normalize")


@pytest.mark.parametrize(("weights", "extras"), [([1.0], 0), ([1.0], 2), ([1.0, 1.0], 1)])
def test_another_number_of_weights_is_refused_with_both_numbers(weights, extras):
    with pytest.raises(ValueError, match=rf"each of the {extras} further reward functions, got {len(weights)}\."):
        with_weights(config(reward_weights=weights), extras)


@pytest.mark.parametrize("mode", MODES)
def test_normalising_each_reward_is_refused_where_sizes_carry_the_meaning(mode):
    args = config(reward_mode=mode, multi_objective_aggregation="normalize_then_sum")
    check_aggregation(config(reward_mode=mode))
    if mode not in ("hybrid", "sum"):
        assert with_weights(args, 0).multi_objective_aggregation == "normalize_then_sum"
        return
    with pytest.raises(InputError, match=f"reward_mode '{mode}' cannot go with"):
        with_weights(args, 0)


def test_names_that_stand_twice_are_named():
    check_names(["reward_model", "math_verifier"])
    with pytest.raises(ValueError, match=r"got \['b'\] more than once among \['a', 'b', 'b'\]"):
        check_names(["a", "b", "b"])


def test_none_one_or_several_become_a_new_list():
    given = [1, 2]
    assert as_list(given) == given
    assert as_list(given) is not given
    assert (as_list(None), as_list((1, 2)), as_list(check_names)) == ([], [1, 2], [check_names])


def test_the_hybrid_column_is_empty_until_it_is_filled():
    assert hybrid_reward(["p", "q"], completions=["c", "d"]) == [None, None]


def test_a_row_whose_sum_is_not_finite_or_that_is_unjudged_pays_nothing():
    scores, verdicts = torch.tensor([1.0, math.inf, 3.0]), torch.tensor([1.0, 0.0, math.nan])
    hybrid = torch.tensor([0.9, 0.1, 7.0])
    paid = {mode: judges_pay(mode, scores, verdicts, hybrid).nan_to_num(-1.0).tolist() for mode in MODES}
    assert paid == {
        "hybrid": pytest.approx([0.9, 0.1, -1.0]), "verifier": [1.0, 0.0, -1.0], "reward_model": [1.0, -1.0, -1.0],
        "sum": [2.0, -1.0, -1.0], "gdpo": [2.0, -1.0, -1.0],
    }  # fmt: skip
