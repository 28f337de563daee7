"""The settings: their defaults, and what is said about values out of range."""

import pytest

from trl_hybrid import HybridGRPOConfig
from trl_hybrid.hybrid.combine import HybridSettings


def config(folder, **settings):
    return HybridGRPOConfig(str(folder), use_cpu=True, report_to="none", **settings)


def test_defaults_are_the_stratified_weighted_hybrid_reward_without_kl(tmp_path):
    args = config(tmp_path)
    assert (args.reward_mode, args.hybrid_bounds, args.scale_rewards) == ("hybrid", "stratum", "none")
    assert args.hybrid_difficulty_weighting
    assert (args.hybrid_w_min, args.hybrid_w_max, args.hybrid_k) == (0.4, 3.0, 6.0)
    assert (args.beta, args.epsilon) == (0.0, 0.2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hybrid_alpha": 0.0}, r"hybrid_alpha must be above 0 and at most 1, got 0\.0"),
        ({"hybrid_beta": 1.5}, r"hybrid_beta must be above 0 and at most 1, got 1\.5"),
        (
            {"hybrid_alpha": 0.6, "hybrid_beta": 0.5},
            r"hybrid_alpha \+ hybrid_beta must be at most 1, got 0\.6 \+ 0\.5",
        ),
        ({"hybrid_eps": 0.0}, r"hybrid_eps must be a positive finite number, got 0\.0"),
        ({"hybrid_w_min": 2.0, "hybrid_w_max": 1.0}, r"hybrid_w_max .* at least hybrid_w_min, got 1\.0 .* = 2\.0"),
        ({"hybrid_w_min": 0.0}, r"hybrid_w_min must be a positive finite number, got 0\.0"),
        ({"num_generations": 1}, r"num_generations must be at least 2, got 1"),
        ({"hybrid_k": -1.0}, r"hybrid_k must be finite and not negative, got -1\.0"),
        ({"hybrid_singleton": "top"}, r"hybrid_singleton must be one of 'middle', 'floor', got 'top'"),
        ({"hybrid_bounds": "batch"}, r"hybrid_bounds must be one of 'stratum', 'group', 'calibrated', got 'batch'"),
        ({"hybrid_sigma": "batch"}, r"hybrid_sigma must be one of 'group', 'stratum', got 'batch'"),
        ({"reward_mode": "rm"}, r"reward_mode must be one of 'hybrid', 'verifier', .*, got 'rm'"),
        ({"hybrid_calibration_prompts": 0}, r"hybrid_calibration_prompts must be at least 1, got 0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_value_and_rule(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        config(tmp_path, **settings)


@pytest.mark.parametrize("mode", ["hybrid", "verifier"])
def test_trls_own_aggregation_is_free_as_long_as_there_are_no_judges(tmp_path, mode):
    args = config(tmp_path, reward_mode=mode, multi_objective_aggregation="normalize_then_sum")
    assert args.multi_objective_aggregation == "normalize_then_sum"


def test_the_shape_of_the_hybrid_reward_is_one_value(tmp_path):
    given = {"eps": 0.01, "alpha": 0.2, "beta": 0.3, "singleton": "floor", "bounds": "calibrated"}
    args = config(tmp_path, **{f"hybrid_{name}": value for name, value in given.items()})
    assert args.hybrid_settings((-1.0, 2.0)) == HybridSettings(**given, calibrated=(-1.0, 2.0))
    assert config(tmp_path).hybrid_settings((-1.0, 2.0)) == HybridSettings()  # bounds that nobody asked for
