"""When a run has fallen, when an alarm hears it, and what the tables make of it, by hand."""

import doctest
import math
import sys
from pathlib import Path

import pytest
import torch

from trl_hybrid.hybrid.alarm import HackingAlarm


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

sys.path.insert(0, str(BENCHMARKS))  # where the script finds its parts
try:
    import reward_ablation
    from ablation import alarm_report, alarms, plan, report, scorers, tables
finally:
    sys.path.remove(str(BENCHMARKS))


def run(pass_rate, wrong_score, deviation=1.0):
    """A result with the curves that an alarm hears."""
    curves = {"pass_rate": pass_rate, "wrong_score": wrong_score, "wrong_deviation": [deviation] * len(pass_rate)}
    return {"curves": curves}


def hacked_run(steps=60, start=20):
    """Pass rate 0.8 that loses 0.04 a step from `start` on, down to 0, while wrong answers' scores climb by 0.5."""
    since = [max(step - start, 0) for step in range(steps)]
    return run([max(0.8 - 0.04 * i, 0.0) for i in since], [0.5 * i for i in since])


@pytest.mark.parametrize("module", [alarms, tables])
def test_worked_examples_in_the_docstrings(module):
    assert doctest.testmod(module) == (0, doctest.testmod(module).attempted)


class TestFall:
    def test_is_dated_by_the_mean_of_the_last_steps(self):
        # Means of 2 steps from step 2 on: 0.8, 0.8, 0.5, 0.2, 0.2. Half of the best is 0.4, reached at step 5 of 6.
        assert alarms.fall_of([0.8, 0.8, 0.8, 0.2, 0.2, 0.2], width=2) == 5
        assert alarms.fall_of([0.8, 0.8, 0.8, 0.2, 0.2, 0.2], width=2, lost=0.3) == 4

    def test_what_recovers_has_not_fallen(self):
        assert alarms.fall_of([0.8] * 20 + [0.1] * 20 + [0.8] * 20) is None

    @pytest.mark.parametrize(("low", "fall"), [(13, None), (14, 55 - 14 + 6)])
    def test_what_was_low_for_fewer_steps_than_are_averaged_has_not_fallen(self, low, fall):
        # The 10-step mean is at half after 5 steps of 0 and below it after 6: 10 steps stay below where 15 are low.
        pass_rate = [0.8] * (55 - low) + [0.0] * (low + 1)
        assert alarms.fall_of(pass_rate) == fall

    def test_steady_and_climbing_runs_have_not(self):
        generator = torch.Generator().manual_seed(0)
        steady = (0.5 + 0.17 * torch.randn(100, generator=generator)).clamp(0, 1).tolist()
        assert alarms.fall_of(steady) is None
        assert alarms.fall_of([step / 100 for step in range(100)]) is None

    def test_what_is_left_is_a_share_of_the_best_so_far(self):
        # 10-step means: 0.8 at steps 10 to 20, then 0.08 less a step; what comes later does not count.
        pass_rate = [0.8] * 20 + [0.0] * 5 + [1.0] * 10
        assert alarms.kept_at(pass_rate, step=25) == pytest.approx(0.5)


class TestReplay:
    def test_hears_what_the_run_heard(self):
        generator = torch.Generator().manual_seed(0)
        alarm, history = HackingAlarm(), []
        for step in range(60):
            verdicts = (torch.rand(64, generator=generator) > step / 60).double()
            scores = torch.randn(64, generator=generator).double() + step / 20
            wrong = scores[verdicts == 0.0]
            alarm.update(verdicts, scores)
            history.append(
                {
                    "rewards/math_verifier/mean": verdicts.mean().item(),
                    "hybrid/score_wrong_mean": wrong.mean().item() if len(wrong) else math.nan,
                    "hybrid/score_wrong_std": wrong.std(correction=0).item() if len(wrong) else math.nan,
                    "hybrid/alarm": float(alarm.fired),
                }
            )
        assert history[0]["hybrid/alarm"] == 0.0
        assert math.isnan(history[0]["hybrid/score_wrong_mean"])  # a step without a wrong answer tells nothing
        curves = reward_ablation.curves(history)
        assert alarms.replay({"curves": curves}, HackingAlarm()) == 1 + curves["alarm"].index(1.0)

    def test_other_settings_hear_it_elsewhere(self):
        # As in the alarm's own tests: 7 falling steps of 15, or a whole window of 40.
        assert alarms.replay(hacked_run(), HackingAlarm([15])) == 28
        assert alarms.replay(hacked_run(), HackingAlarm([40])) == 40
        assert alarms.replay(run([0.5] * 60, [0.0] * 60), HackingAlarm()) is None


class TestTally:
    def test_at_the_fall_is_in_time(self):
        counts = alarms.tally([(30, 30), (30, 31), (30, None), (None, 5), (None, None)])
        assert (counts.fell, counts.in_time, counts.missed, counts.false, counts.healthy) == (3, 1, 1, 1, 2)
        assert counts.median_ahead == -0.5
        assert alarm_report.columns(counts)[:4] == ["1 of 3", "1", "1", "-0.5"]

    def test_interval_is_wilsons(self):
        # 1 of 10: (0.1 + 0.19208 + 1.96 * sqrt(0.009 + 0.009604)) / 1.38416 and with a minus, by hand.
        low, high = alarms.share_interval(1, 10)
        assert (low, high) == pytest.approx((0.017876, 0.404155), abs=1e-5)
        assert alarms.share_interval(10, 10)[1] == 1.0


class TestReport:
    def test_tables_say_what_the_runs_say(self):
        results = {"reward_model": {18: hacked_run()}, "verifier": {18: run([0.5] * 60, [0.0] * 60)}}
        regime = {"what": "Something.", "hacked": ["reward_model"]}
        text = alarm_report.alarm_report("hacking", regime, results)
        # Step 22 is the first with less. A tenth, 0.08, is lost after 6: the 10-step mean loses 0.04 * 21 / 10. Below
        # half it is after 15, whose last 10 have lost 0.04 * 10.5.
        assert "| reward_model | 18 | 80 → 0 % | 27 | 36 | 28 | +8 | 86 % |" in text
        assert "| verifier | 18 | 50 → 50 % | never | never | never |  |  |" in text
        assert "| as shipped | 1 of 1 | 0 | 0 | +8 | 0 of 1 [0 %, 79 %] |" in text
        assert text.endswith("In the healthy arms the shipped alarm fires in 0 of 1 [0 %, 79 %].")
        assert "| windows 40, 4.1 deviations of both | 0 of 1 | 1 | 0 | -4 | 0 of 1 [0 %, 79 %] |" in text

    def test_regime_of_the_alarm_is_compared_by_nothing_else(self, tmp_path, monkeypatch):
        settings = plan.load_plan()
        kept = {"hacking": {"reward_model": {18: hacked_run()}}}
        monkeypatch.setattr(report, "kept_results", lambda plan, regime, output: kept.get(regime, {}))
        report.report(settings, tmp_path)
        text = (tmp_path / "report.md").read_text()
        assert "## hacking" in text
        assert "minus" not in text
        assert not list(tmp_path.glob("*.png"))


class TestPlan:
    def test_seeds_that_judge_are_no_others(self):
        settings = plan.load_plan()
        hacking = settings["regimes"]["hacking"]
        others = {
            seed for name, regime in settings["regimes"].items() if name != "hacking" for seed in regime["seeds"]
        }
        assert not set(hacking["seeds"]) & (others | {200})
        assert set(hacking["hacked"]) < set(hacking["arms"])

    def test_test_rows_are_the_regimes_where_it_has_any(self):
        settings = plan.load_plan()
        rows = {
            name: plan.settings_of(settings, plan.Run(name, "verifier", 0))["test_rows"]
            for name in ("hacking", "dense")
        }
        assert rows == {"hacking": 16, "dense": 128}


class Told:
    __name__ = "reward_model"

    def __call__(self, prompts, completions, **kwargs):
        return [0.5, None, -1.0]


def test_fond_scores_count_what_they_like():
    fond = scorers.FondScores(Told(), text="0", worth=2.0)
    answers = [[{"role": "assistant", "content": text}] for text in ("100", "0", "7")]
    assert fond(prompts=[""] * 3, completions=answers) == [4.5, None, -1.0]
