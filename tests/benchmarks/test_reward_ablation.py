import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trl_hybrid import HybridGRPOConfig


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "reward_ablation.py"


sys.path.insert(0, str(SCRIPT.parent))  # where the script finds its parts
try:
    import reward_ablation
    from ablation import figures, plan, report
finally:
    sys.path.remove(str(SCRIPT.parent))


@pytest.fixture
def settings():
    return plan.load_plan()


def keep(settings, folder, regime, arm, seed, mean_of_8, greedy=0.5, pass_rate=(0.0, 0.5)):
    """Write a result as a run does, with figures given in advance."""
    run = plan.Run(regime, arm, seed)
    result = {
        "regime": regime,
        "arm": arm,
        "seed": seed,
        "accuracy": {
            "greedy": {"before": 0.0, "after": greedy},
            "mean_of_8": {"before": 0.03, "after": mean_of_8},
        },
        "curves": {"pass_rate": list(pass_rate), "score": [-1.0, 1.0], "all_wrong_groups": [0.75, 0.25]},
        "settings": plan.settings_of(settings, run),
    }
    run.file(folder).write_text(json.dumps(result))


class TestPairedInterval:
    def test_equals_the_interval_worked_by_hand(self):
        # Differences 0.02, 0.04, 0.06, 0.08, 0.10: mean 0.06, squares of the deviations 0.0016 + 0.0004 + 0 + 0.0004
        # + 0.0016 = 0.004, variance 0.001, half 2.7764 * sqrt(0.001 / 5) = 0.039264.
        first, second = [0.12, 0.24, 0.36, 0.48, 0.60], [0.10, 0.20, 0.30, 0.40, 0.50]
        interval = figures.paired_interval(first, second)
        assert interval.mean == pytest.approx(0.06)
        assert interval.low == pytest.approx(0.06 - 0.039264, abs=1e-6)
        assert interval.high == pytest.approx(0.06 + 0.039264, abs=1e-6)
        assert interval.pairs == 5
        assert str(interval) == "+6.0 [+2.1, +9.9]"

    def test_pairs_cancel_what_the_seeds_share(self):
        interval = figures.paired_interval([0.9, 0.1, 0.5], [0.8, 0.0, 0.4])
        assert (interval.low, interval.high) == pytest.approx((0.1, 0.1))

    def test_one_pair_has_no_bounds(self):
        interval = figures.paired_interval([0.3], [0.1])
        assert interval.mean == pytest.approx(0.2)
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
        assert str(interval) == "+20.0"

    @pytest.mark.parametrize("pairs", [0, 11])
    def test_refuses_what_its_table_does_not_reach(self, pairs):
        with pytest.raises(ValueError, match=f"1 to 10 pairs, got {pairs}"):
            figures.paired_interval([0.0] * pairs, [0.0] * pairs)

    def test_refuses_arms_of_different_length(self):
        with pytest.raises(ValueError, match="shorter"):
            figures.paired_interval([0.0, 1.0], [0.0])


class TestResults:
    def test_area_is_the_mean_pass_rate(self):
        assert figures.measure({"curves": {"pass_rate": [0.0, 0.25, 0.5]}}, "area") == 0.25

    def test_only_seeds_that_both_arms_have_are_paired(self, settings, tmp_path):
        for seed, value in ((0, 0.5), (1, 0.75), (2, 0.9)):
            keep(settings, tmp_path, "sparse", "hybrid", seed, value)
        for seed, value in ((1, 0.5), (0, 0.25), (5, 0.0)):
            keep(settings, tmp_path, "sparse", "verifier", seed, value)
        interval = figures.compare(plan.kept_results(settings, "sparse", tmp_path), "hybrid", "verifier", "mean_of_8")
        assert (interval.mean, interval.pairs) == (0.25, 2)

    def test_result_of_other_settings_is_refused(self, settings, tmp_path):
        keep(settings, tmp_path, "sparse", "sum", 0, 0.5)
        settings["training"]["max_steps"] += 1
        with pytest.raises(SystemExit, match=r"sparse-sum-0\.json was made with other settings"):
            plan.missing_runs(settings, "sparse", tmp_path)

    def test_what_is_there_is_not_missing(self, settings, tmp_path):
        keep(settings, tmp_path, "sparse", "sum", 0, 0.5)
        missing = plan.missing_runs(settings, "sparse", tmp_path, arms=["sum", "gdpo"], seeds=[0, 1])
        assert [(run.arm, run.seed) for run in missing] == [("gdpo", 0), ("sum", 1), ("gdpo", 1)]

    def test_best_rival_is_chosen_by_the_sparse_regime_and_only_when_that_is_complete(self, settings, tmp_path):
        values = {"reward_model": 0.1, "sum": 0.4, "gdpo": 0.3}
        for arm, value in values.items():
            for seed in (0, 1, 2, 3):
                keep(settings, tmp_path, "sparse", arm, seed, value)
        with pytest.raises(SystemExit, match="3 runs are missing"):
            plan.resolve_arms(settings, "dense", tmp_path)
        for arm, value in values.items():
            keep(settings, tmp_path, "sparse", arm, 4, value)
        assert plan.resolve_arms(settings, "dense", tmp_path) == ["verifier", "sum", "hybrid"]

    def test_metrics_that_are_missing_or_nan_are_none(self):
        history = [{"rewards/math_verifier/mean": "0.25", "hybrid/auc": math.nan, "entropy": 0.1}, {"train_loss": 1.0}]
        curves = reward_ablation.curves(history)
        assert (curves["pass_rate"], curves["auc"], curves["score"], curves["entropy"]) == (
            [0.25],
            [None],
            [None],
            [0.1],
        )


class TestReport:
    def test_tables_say_what_the_results_say(self, settings, tmp_path, capsys):
        for seed in (0, 1, 2):
            keep(settings, tmp_path, "sparse", "verifier", seed, 0.2 + seed / 100)
            keep(settings, tmp_path, "sparse", "hybrid", seed, 0.4 + seed / 100, greedy=0.6)
            keep(settings, tmp_path, "dense", "verifier", seed, 0.75)
            keep(settings, tmp_path, "dense", "hybrid", seed, 0.72)
        report.report(settings, tmp_path)
        text = capsys.readouterr().out
        assert "| verifier | 50.0 | 21.0 | 25.0 | 0.000 → 0.500 | -1.00 → +1.00 | 50 % | 3 |" in text
        assert "| hybrid - verifier | +10.0 [+10.0, +10.0] | +20.0 [+20.0, +20.0] | +0.0 [+0.0, +0.0] | 3 |" in text
        assert "hybrid - verifier above 0 (mean of 8): +20.0 [+20.0, +20.0], 3 pairs: met." in text
        assert "within 2 points of the best arm (mean of 8): the best is verifier, the gap -3.0: missed." in text
        assert text.strip().startswith((tmp_path / "report.md").read_text().split("\n\n", 1)[1][:200])
        for picture in ("learning_curves.png", "reward_hacking.png", "hybrid_and_verifier.png"):
            assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")

    def test_without_results_says_how_to_make_them(self, settings, tmp_path):
        with pytest.raises(SystemExit, match="Start without --report"):
            report.report(settings, tmp_path)


class TestPlan:
    def test_every_arm_is_a_valid_configuration(self, settings, tmp_path):
        for arm, changes in settings["arms"].items():
            training = plan.settings_of(settings, plan.Run("sparse", arm, 0))["training"]
            args = HybridGRPOConfig(str(tmp_path), **training)
            assert {name: getattr(args, name) for name in changes} == changes

    def test_arms_differ_in_the_reward_only(self, settings):
        changed = {key for arm in settings["arms"].values() for key in arm}
        assert all(key in ("reward_mode", "scale_rewards") or key.startswith("hybrid_") for key in changed)
        named = {arm for regime in settings["regimes"].values() for arm in regime["arms"]} - {plan.BEST_RIVAL}
        assert named <= set(settings["arms"])

    def test_quick_is_never_taken_for_the_real_thing(self, settings, tmp_path):
        quick = plan.load_plan(quick=True)
        keep(quick, tmp_path, "sparse", "hybrid", 0, 0.5)
        with pytest.raises(SystemExit, match="other settings"):
            plan.kept_results(settings, "sparse", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_quick_trains_resumes_and_reports(tmp_path):
    command = [sys.executable, str(SCRIPT), "--quick", "--output", str(tmp_path)]
    run = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    hybrid, verifier = (json.loads((tmp_path / f"sparse-{arm}-0.json").read_text()) for arm in ("hybrid", "verifier"))
    assert len(hybrid["curves"]["pass_rate"]) == 3
    # Both sampled the same answers before they had learned anything.
    assert hybrid["accuracy"]["mean_of_8"]["before"] == verifier["accuracy"]["mean_of_8"]["before"]
    assert hybrid["curves"]["score"][0] == verifier["curves"]["score"][0]
    assert "| hybrid - verifier |" in run.stdout

    (tmp_path / "sparse-hybrid-0.json").unlink()
    before = (tmp_path / "sparse-verifier-0.json").stat().st_mtime_ns
    again = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=280)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "sparse-verifier-0.json").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "sparse-hybrid-0.json").read_text())["curves"] == hybrid["curves"]
