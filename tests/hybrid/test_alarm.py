"""Ranking and drift by hand; an alarm that hears a hacked reward model and not noise."""

import itertools
import json
import math
import statistics

import pytest
import torch

from trl_hybrid.hybrid.alarm import HackingAlarm, RecentAuc, ScoreDrift, trend, trend_deviation


NAN = math.nan


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


class TestRecentAuc:
    def test_each_mixed_group_of_the_window_counts_once(self):
        recent, nothing = RecentAuc(window=2), tensor([NAN] * 6)
        # No mixed group; then one of (right 2; wrong 1, 5: 1/2) and one of (right 3, 4; wrong 1: 1).
        assert math.isnan(recent.update(tensor([0.0] * 6), tensor([1.0, 2, 3, 4, 5, 6]), 3)[0])
        mixed = tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
        assert recent.update(mixed, tensor([2.0, 1, 5, 3, 4, 1]), 3) == (0.75, 2)
        # One mixed group that is ranked wrongly, the other's scores are broken: (1/2 + 1 + 0) / 3.
        assert recent.update(mixed, tensor([1.0, 2, 3, NAN, NAN, 1]), 3) == (pytest.approx(0.5), 3)
        assert recent.update(nothing, tensor([1.0] * 6), 3) == (0.0, 1)
        assert recent.update(nothing, tensor([1.0] * 6), 3)[1] == 0

    def test_restored_it_goes_on(self):
        generator = torch.Generator().manual_seed(0)
        steps = [
            (torch.randint(2, (8,), generator=generator).double(), torch.randn(8, generator=generator).double())
            for _ in range(8)
        ]
        unbroken, first, second = (RecentAuc(window=3) for _ in range(3))
        expected = [unbroken.update(*step, 4) for step in steps]
        for step in steps[:5]:
            first.update(*step, 4)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert [second.update(*step, 4) for step in steps[5:]] == expected[5:]

    def test_a_window_needs_a_step(self):
        with pytest.raises(ValueError, match="window must be at least 1 step, got 0"):
            RecentAuc(window=0)


class TestScoreDrift:
    def test_by_hand(self):
        drift = ScoreDrift(steps=2)
        assert math.isnan(drift.update(torch.tensor([0.0, 2.0, NAN])))
        assert math.isnan(drift.update(torch.tensor([NAN, math.inf])))  # not one of the first steps
        assert math.isnan(drift.update(torch.tensor([5.0])))
        # The reference is (1 + 5) / 2.
        assert drift.update(torch.tensor([4.0, 6.0])) == 2.0
        assert drift.update(torch.tensor([-1.0])) == -4.0
        assert math.isnan(drift.update(torch.tensor([NAN])))

    @pytest.mark.parametrize("before", [1, 3])
    def test_restored_it_goes_on(self, before):
        scores = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        unbroken, first, second = (ScoreDrift(steps=2) for _ in range(3))
        expected = [unbroken.update(step) for step in scores]
        for step in scores[:before]:
            first.update(step)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert [second.update(step) for step in scores[before:]] == pytest.approx(
            expected[before:], abs=0, rel=0, nan_ok=True
        )

    def test_ten_steps_are_the_reference_unless_said(self):
        drift = ScoreDrift()
        assert all(math.isnan(drift.update(torch.tensor([float(i)]))) for i in range(10))
        assert drift.update(torch.tensor([5.0])) == pytest.approx(0.5)  # the mean of 0..9 is 4.5

    def test_a_single_step_can_be_the_reference(self):
        drift = ScoreDrift(steps=1)
        assert math.isnan(drift.update(torch.tensor([3.0])))
        assert drift.update(torch.tensor([5.0])) == 2.0

    def test_scores_in_single_precision_are_averaged_in_double(self):
        drift = ScoreDrift(steps=1)
        drift.update(torch.tensor([1e8, 1.0, 1.0, 1.0]))
        assert drift.update(torch.tensor([0.0])) == -25_000_000.75

    def test_a_reference_needs_a_step(self):
        with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
            ScoreDrift(steps=0)


class TestTrend:
    @pytest.mark.parametrize(
        ("values", "tau"),
        [
            ([1.0, 2.0, 3.0], 1.0),
            ([3.0, 2.0, 1.0], -1.0),
            ([1.0, 1.0, 1.0], 0.0),
            ([1.0, 3.0, 2.0], 1 / 3),
            ([1.0, 1.0, 2.0], 2 / 3),
        ],
    )
    def test_by_hand(self, values, tau):
        assert trend(torch.tensor(values)) == pytest.approx(tau)

    def test_one_odd_step_hardly_moves_it(self):
        values = torch.arange(20.0)
        values[3] = 1e9
        assert trend(values) > 0.8


class TestTrendDeviation:
    @pytest.mark.parametrize("steps", [3, 4, 5])
    def test_is_that_over_all_orders(self, steps):
        orders = [trend(torch.tensor(order, dtype=torch.float64)) for order in itertools.permutations(range(steps))]
        assert trend_deviation(steps) == pytest.approx(statistics.pstdev(orders))


PERFECT_16 = {"climb": 1.0 / trend_deviation(16), "drop": 1.0 / trend_deviation(16)}
"""What only a window of 16 steps reaches that are all in order."""


def step(pass_rate, wrong_score, spread=2.0, rows=100):
    """A step's rows with this share of right answers, and wrong ones scored `wrong_score` +- `spread`."""
    right = round(pass_rate * rows)
    verdicts = torch.tensor([1.0] * right + [0.0] * (rows - right))
    sides = torch.ones(rows)
    sides[1::2] = -1.0
    return verdicts, wrong_score + spread * sides


def fired_at(alarm, steps):
    fired = [i for i, (passed, score) in enumerate(steps) if alarm.update(*step(passed, score))]
    assert len(fired) <= 1
    return fired[0] if fired else None


def noise(seed, length):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, 2, generator=generator).tolist()


def hacked(seed, start=60, length=160):
    """The pass rate falls from 0.5 to 0 within 100 steps while wrong answers' scores climb by 6, under noise."""
    for i, (first, second) in enumerate(noise(seed, length)):
        ramp = min(max(i - start, 0) / 100, 1.0)
        yield min(max(0.5 * (1 - ramp) + 0.06 * first, 0.0), 0.99), 6.0 * ramp + 0.3 * second


class TestHackingAlarm:
    @pytest.mark.parametrize("seed", range(5))
    def test_hears_a_hacked_reward_model_early_and_once(self, seed):
        heard = fired_at(HackingAlarm(), hacked(seed))
        assert heard is not None
        assert 60 < heard < 100  # before 2/5 of the accuracy is gone

    @pytest.mark.parametrize("seed", range(5))
    def test_noise_does_not_set_it_off(self, seed):
        steps = [(0.5 + 0.06 * max(min(a, 3), -3), 0.3 * b) for a, b in noise(seed, 400)]
        assert fired_at(HackingAlarm(), steps) is None

    @pytest.mark.parametrize("seed", range(5))
    def test_noise_common_to_both_does_not_set_it_off(self, seed):
        steps = [(0.5 + 0.06 * max(min(a, 3), -3), -0.3 * a) for a, _ in noise(seed, 400)]
        assert fired_at(HackingAlarm(), steps) is None

    @pytest.mark.parametrize(
        ("passed", "score"),
        [
            (lambda t: 0.2 + 0.6 * t, lambda t: 6 * t),  # learning: both climb
            (lambda t: 0.8 - 0.6 * t, lambda t: -6 * t),  # forgetting: both fall
            (lambda t: 0.8 - 0.6 * t, lambda t: 0.0),
            (lambda t: 0.5, lambda t: 6 * t),
            (lambda t: 0.8 - 0.6 * t, lambda t: 0.2 * t),  # a climb that is a tenth of the scores' deviation
            (lambda t: 0.8 - 0.06 * t, lambda t: 6 * t),  # a fall of some hundredths
        ],
    )
    def test_other_curves_do_not_set_it_off(self, passed, score):
        curve = [(passed(i / 80), score(i / 80)) for i in range(80)]
        assert fired_at(HackingAlarm(), curve) is None

    def test_odd_steps_do_not_set_it_off(self):
        falling, climbing = [0.9 - 0.02 * i for i in range(20)], [0.5 * i for i in range(20)]
        assert fired_at(HackingAlarm(windows=[20]), zip(falling, climbing, strict=True)) == 19
        one_high = [1000.0 * (i == 15) for i in range(20)]
        assert fired_at(HackingAlarm(windows=[20]), zip(falling, one_high, strict=True)) is None
        two_low = [0.5 * (i not in (15, 17)) for i in range(20)]
        assert fired_at(HackingAlarm(windows=[20]), zip(two_low, climbing, strict=True)) is None

    def test_sparse_runs_are_heard_too(self):
        curve = [(max(0.08 - 0.001 * i, 0.0), 0.05 * i) for i in range(80)]
        assert fired_at(HackingAlarm(), curve) is not None

    def test_waits_for_a_whole_window(self):
        curve = [(0.9 - 0.04 * i, float(i)) for i in range(20)]
        assert fired_at(HackingAlarm(windows=[12]), curve) == 11

    def test_steps_that_tell_nothing_are_left_out(self):
        alarm = HackingAlarm(windows=[10])
        for verdict, score in ((1.0, 5.0), (NAN, 5.0), (0.0, NAN)):
            assert not alarm.update(torch.tensor([verdict]), torch.tensor([score]))
        assert alarm.state_dict() == {"fired": False, "steps": []}

    @pytest.mark.parametrize("before", [30, 75, 120])
    def test_restored_it_fires_where_an_unbroken_one_does(self, before):
        steps = list(hacked(0))
        expected = fired_at(HackingAlarm(), steps)
        first, second = HackingAlarm(), HackingAlarm()
        early = fired_at(first, steps[:before])
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        late = fired_at(second, steps[before:])
        assert (early if early is not None else before + late) == expected
        assert second.fired
        assert early is None or late is None

    def at_the_limits(self):
        """16 steps whose pass rate falls from 1/2 to 1/4 and whose scores climb by 2, the halves' means; spread 1."""
        right = [78, 74, 70, 66, 62, 58, 54, 50, 46, 42, 38, 34, 30, 26, 22, 18]
        # So far from 0 that single precision sees no climb.
        return [(passed / 128, 2.0**27 + 0.25 * i) for i, passed in enumerate(right)]

    @pytest.mark.parametrize(
        ("changed", "heard"),
        [({}, True), ({"rise": 2.01}, False), ({"rise": 1.99}, True), ({"fall": 0.51}, False), ({"fall": 0.49}, True)],
    )
    def test_limits_are_reached_where_they_are_equalled(self, changed, heard):
        alarm = HackingAlarm(**{"windows": [16], **PERFECT_16, "rise": 2.0, "fall": 0.5, **changed})
        fired = []
        for passed, score in self.at_the_limits():
            verdicts, scores = step(passed, 0.0, spread=1.0, rows=128)
            fired.append(alarm.update(verdicts, scores.double() + score))
        assert fired == [False] * 15 + [heard]

    @pytest.mark.parametrize("odd", ["passed", "score"])
    def test_one_step_out_of_order_is_no_perfect_trend(self, odd):
        alarm = HackingAlarm(windows=[16], **PERFECT_16, rise=1.0, fall=0.3)
        steps = self.at_the_limits()
        (first, low), (second, high) = steps[7:9]
        steps[7:9] = [(second, low), (first, high)] if odd == "passed" else [(first, high), (second, low)]
        for passed, score in steps:
            verdicts, scores = step(passed, 0.0, spread=1.0, rows=128)
            assert not alarm.update(verdicts, scores.double() + score)

    @pytest.mark.parametrize("flat", [0, 100])
    def test_fall_within_few_steps_is_heard_before_half_is_lost(self, flat):
        curve = [(0.8, 0.0)] * flat + [(0.8 - 0.04 * i, 0.5 * i) for i in range(20)]
        heard = fired_at(HackingAlarm(), curve)
        # As soon as a window of 15 steps is there. After a flat start, when 7 of 15 have fallen: 7 * 6 / 2 pairs of
        # them and 7 * 8 with the others are 77 of 105, above 3.5 deviations of 0.1925; 6 of 15 make 69 of 105.
        assert heard == (14 if flat == 0 else 107)
        assert fired_at(HackingAlarm(windows=[40]), curve) == (None if flat == 0 else 109)

    def test_slow_fall_is_heard_through_the_longest_window_only(self):
        """A fall of two hundredths in ten steps under noise: 40 steps lose a tenth between their halves, 30 do not."""
        curve = [(0.5 - 0.0027 * i, 0.02 * i) for i in range(40)]
        assert fired_at(HackingAlarm(), curve) == 39
        assert fired_at(HackingAlarm(windows=[15, 20, 30]), curve) is None

    @pytest.mark.parametrize(
        ("climb", "fall", "heard"),
        [(0.21, 0.2, True), (0.19, 0.2, False), (1.0, 0.11, True), (1.0, 0.09, False)],
    )
    def test_a_tenth_of_both_is_asked_for_unless_said(self, climb, fall, heard):
        """Between the halves, scores of deviation 2 climb by `climb` and a pass rate of 0.5 loses the share `fall`."""
        # 40 steps to a line; the halves' means are 20 steps apart.
        curve = [(0.5 - fall * 0.5 * (i - 9.5) / 20, climb * i / 20) for i in range(40)]
        alarm = HackingAlarm()
        fired = False
        for passed, score in curve:
            fired |= alarm.update(*step(passed, score, rows=10_000))
        assert fired is heard

    def test_scores_in_single_precision_are_averaged_in_double(self):
        alarm = HackingAlarm()
        alarm.update(torch.zeros(4), torch.tensor([1e8, 1.0, 1.0, 1.0]))
        assert alarm.state_dict()["steps"][0][0] == 25_000_000.75

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"windows": [9, 40]}, "windows must be at least 10"),
            ({"windows": []}, "windows"),
            ({"climb": 0.0}, "climb must be above 0"),
            # Of a perfect trend of 40 steps: sqrt(9 * 40 * 39 / 170).
            ({"drop": 9.2}, "drop must be above 0 and at most 9.09"),
        ],
    )
    def test_bad_settings(self, settings, named):
        with pytest.raises(ValueError, match=named):
            HackingAlarm(**settings)

    def test_logged_figures_are_heard_as_the_rows_were(self):
        rows, figures = HackingAlarm(), HackingAlarm()
        for passed, score in hacked(0):
            verdicts, scores = step(passed, score)
            wrong = scores[verdicts == 0.0].double()
            heard = figures.hear(wrong.mean().item(), wrong.std(correction=0).item(), verdicts.mean().item())
            assert rows.update(verdicts, scores) == heard
        assert figures.fired
