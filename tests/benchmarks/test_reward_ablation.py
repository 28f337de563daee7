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


def keep(settings, folder, regime, arm, seed, mean_of_8, greedy=0.5, pass_rate=(0.0, 0.5), cpu=32.0):
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
        "curves": {
            "pass_rate": list(pass_rate),
            "score": [-1.0, 1.0],
            "auc": [0.625, None],
            "all_wrong_groups": [0.75, 0.25],
        },
        "seconds": {"cpu": cpu, "steps": 30.0, "scoring": 2.0},
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

    def test_seconds_of_the_steps_are_those_of_their_parts(self):
        step = {"time/generation": 1.0, "time/judging": "0.5", "time/update": 2.0, "step_time": 9.0}
        assert reward_ablation.step_seconds([step, step, {"train_loss": 1.0}]) == 7.0

    def test_what_an_arm_is_stands_beside_the_trainers_settings(self, settings):
        kinds = {}
        for arm in ("verifier", "prof", "hybrid_shuffled"):
            of_run = plan.settings_of(settings, plan.Run("sparse", arm, 0))
            assert not {"rival", "scores"} & set(of_run["training"])
            kinds[arm] = (of_run.get("rival"), of_run.get("scores"))
        assert kinds == {"verifier": (None, None), "prof": ("prof", None), "hybrid_shuffled": (None, "shuffled")}

    def test_random_scores_need_no_reward_model(self, settings):
        of_run = plan.settings_of(settings, plan.Run("sparse", "hybrid_random", 7)) | {
            "reward_model": "no/such/folder"
        }
        first, again = (reward_ablation.scorer_of(of_run)([""] * 3, [""] * 3) for _ in range(2))
        assert first == again  # the run's seed decides


class TestReport:
    def test_tables_say_what_the_results_say(self, settings, tmp_path, capsys):
        for seed in (0, 1, 2):
            keep(settings, tmp_path, "sparse", "verifier", seed, 0.2 + seed / 100)
            keep(settings, tmp_path, "sparse", "hybrid", seed, 0.4 + seed / 100, greedy=0.6)
            keep(settings, tmp_path, "dense", "verifier", seed, 0.75)
            keep(settings, tmp_path, "dense", "hybrid", seed, 0.72)
        report.report(settings, tmp_path)
        text = capsys.readouterr().out
        assert "| verifier | 50.0 | 21.0 | 25.0 | 0.000 → 0.500 | -1.00 → +1.00 | 0.62 → nan | 50 % | 3 |" in text
        assert "| hybrid - verifier | +10.0 [+10.0, +10.0] | +20.0 [+20.0, +20.0] | +0.0 [+0.0, +0.0] | 3 |" in text
        assert "hybrid - verifier above 0 (mean of 8): +20.0 [+20.0, +20.0], 3 pairs: met." in text
        assert "within 2 points of the best arm (mean of 8): the best is verifier, the gap -3.0: missed." in text
        assert text.strip().startswith((tmp_path / "report.md").read_text().split("\n\n", 1)[1][:200])
        for picture in ("learning_curves.png", "reward_hacking.png", "hybrid_and_verifier.png"):
            assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")

    def test_without_results_says_how_to_make_them(self, settings, tmp_path):
        with pytest.raises(SystemExit, match="Start without --report"):
            report.report(settings, tmp_path)


class TestTuning:
    RATES = ("0.0004", "0.0008", "0.0016")

    def keep_tuning(self, settings, folder, arm, means):
        for rate, both in zip(self.RATES, means, strict=True):
            for seed, mean_of_8 in zip((100, 101), both, strict=True):
                keep(settings, folder, f"tuning_{rate}", arm, seed, mean_of_8)

    def test_highest_mean_over_the_tuning_seeds_is_chosen_and_the_smallest_of_equal_ones(self, settings, tmp_path):
        # Means 0.35, 0.35 and 0.3, though the best single run is at the highest rate.
        self.keep_tuning(settings, tmp_path, "papo", [(0.3, 0.4), (0.4, 0.3), (0.0, 0.6)])
        self.keep_tuning(settings, tmp_path, "prof", [(0.3, 0.4), (0.4, 0.3), (0.2, 0.6)])
        plan.choose_learning_rates(settings, tmp_path)
        assert settings["regimes"]["rivals"]["learning_rates"] == {"papo": 4e-4, "prof": 1.6e-3}
        assert plan.settings_of(settings, plan.Run("rivals", "prof", 13))["training"]["learning_rate"] == 1.6e-3

    def test_arm_that_differs_in_steps_takes_the_same_learning_rate(self, settings, tmp_path):
        self.keep_tuning(settings, tmp_path, "verifier", [(0.2, 0.2), (0.3, 0.3), (0.2, 0.2)])
        plan.choose_learning_rates(settings, tmp_path)
        training = plan.settings_of(settings, plan.Run("rivals", "verifier_longer", 13))["training"]
        assert (training["learning_rate"], training["max_steps"]) == (8e-4, 42)

    def test_nothing_is_compared_before_its_tuning_is_complete(self, settings, tmp_path):
        self.keep_tuning(settings, tmp_path, "sign", [(0.1, 0.1)] * 3)
        plan.Run("tuning_0.0016", "sign", 101).file(tmp_path).unlink()
        plan.choose_learning_rates(settings, tmp_path)
        with pytest.raises(SystemExit, match=r"'sign' yet\. Run --regime tuning_0\.0004 .* tuning_0\.0016 first"):
            plan.missing_runs(settings, "rivals", tmp_path, arms=["sign"])

    def test_result_of_another_learning_rate_than_the_rules_is_refused(self, settings, tmp_path):
        self.keep_tuning(settings, tmp_path, "prof", [(0.2, 0.2), (0.1, 0.1), (0.1, 0.1)])
        plan.choose_learning_rates(settings, tmp_path)
        keep(settings, tmp_path, "rivals", "prof", 13, 0.5)
        self.keep_tuning(settings, tmp_path, "prof", [(0.2, 0.2), (0.3, 0.3), (0.1, 0.1)])
        plan.choose_learning_rates(settings, tmp_path)
        with pytest.raises(SystemExit, match="other settings"):
            plan.kept_results(settings, "rivals", tmp_path)

    def test_report_says_what_was_tried_chosen_and_paid(self, settings, tmp_path, capsys):
        for arm in ("verifier", "hybrid", "hybrid_random"):
            self.keep_tuning(settings, tmp_path, arm, [(0.1, 0.2), (0.4, 0.5), (0.2, 0.2)])
        plan.choose_learning_rates(settings, tmp_path)
        for arm in ("verifier", "hybrid", "verifier_longer"):
            keep(settings, tmp_path, "rivals", arm, 13, 0.5)
        # Runs that shared their core took longer than they worked: they say nothing of seconds.
        keep(settings, tmp_path, "rivals", "verifier", 14, 0.5, cpu=20.0)
        keep(settings, tmp_path, "rivals", "hybrid_random", 13, 0.5, cpu=29.9)
        report.report(settings, tmp_path)
        text = capsys.readouterr().out
        # 30 seconds in 40 steps, of which 2 for scores that the verifier does not read; the longer one made 42 steps.
        assert "| verifier | 15.0 | 45.0 | 20.0 | 0.0008 | 0.700 |" in text
        assert "| hybrid | 15.0 | 45.0 | 20.0 | 0.0008 | 0.750 |" in text
        assert "| verifier_longer | 15.0 | 45.0 | 20.0 | 0.0008 | 0.667 |" in text
        assert "| hybrid_random | 15.0 | 45.0 | 20.0 | 0.0008 | not timed |" in text
        assert "## tuning" not in text


class TestPlan:
    def test_every_arm_is_a_valid_configuration(self, settings, tmp_path):
        for arm, changes in settings["arms"].items():
            training = plan.settings_of(settings, plan.Run("sparse", arm, 0))["training"]
            args = HybridGRPOConfig(str(tmp_path), **training)
            of_the_trainer = {name: value for name, value in changes.items() if name not in plan.OF_THE_BENCHMARK}
            assert {name: getattr(args, name) for name in of_the_trainer} == of_the_trainer

    def test_arms_differ_in_the_reward_only(self, settings):
        rewards = ("reward_mode", "scale_rewards", *plan.KINDS, "epsilon", "epsilon_high")
        for name, arm in settings["arms"].items():
            others = {key for key in arm if key not in rewards and not key.startswith("hybrid_")}
            assert others == ({"max_steps", "tuned_as"} if name.endswith("_longer") else set())
        named = {arm for regime in settings["regimes"].values() for arm in regime["arms"]} - {plan.BEST_RIVAL}
        assert named <= set(settings["arms"])

    def test_longer_arms_differ_in_the_steps_only(self, settings):
        for name in ("verifier", "sign", "ngrpo", "rl_zvp"):
            longer = settings["arms"][f"{name}_longer"]
            assert longer == {**settings["arms"][name], "max_steps": 42, "tuned_as": name}

    def test_tuning_seeds_are_no_others(self, settings):
        tuning = settings["regimes"]["rivals"]["tuned_by"]
        for name, regime in settings["regimes"].items():
            assert (set(regime["seeds"]) & {100, 101} == set()) == (name not in tuning)

    def test_quick_is_never_taken_for_the_real_thing(self, settings, tmp_path):
        quick = plan.load_plan(size="quick")
        keep(quick, tmp_path, "sparse", "hybrid", 0, 0.5)
        with pytest.raises(SystemExit, match="other settings"):
            plan.kept_results(settings, "sparse", tmp_path)


class TestTheOtherPlan:
    """SmolLM2's study, at each of its sizes."""

    @pytest.fixture(params=[None, "quick", "larger"])
    def sized(self, request):
        return plan.load_plan(SCRIPT.parent / "smollm2_study.yaml", request.param)

    def test_every_run_has_settings_that_the_trainer_takes(self, sized, tmp_path):
        for arm in sized["regimes"]["study"]["arms"]:
            training = plan.settings_of(sized, plan.Run("study", arm, 2))["training"]
            args = HybridGRPOConfig(str(tmp_path), **{**training, "use_cpu": True, "bf16": False})
            assert args.max_steps == training["max_steps"]

    def test_an_arm_may_have_a_reward_model_of_its_own(self, sized):
        own, near = (plan.settings_of(sized, plan.Run("study", arm, 2)) for arm in ("hybrid", "hybrid_near"))
        assert near["reward_model"] == "runs/reward-model-near" != own["reward_model"]
        assert {**near, "reward_model": None} == {**own, "reward_model": None}

    def test_a_size_that_a_plan_does_not_have_is_refused(self):
        with pytest.raises(SystemExit, match="no section 'larger'"):
            plan.load_plan(size="larger")


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
