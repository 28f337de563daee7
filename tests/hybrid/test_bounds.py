"""Calibrated bounds: what they are taken from, and that they survive a checkpoint."""

import json
import math

import pytest
import torch

from trl_hybrid.hybrid.bounds import CalibratedBounds, check_bounds, extremes, rescale, rescale_among


NAN = math.nan


class TestCalibratedBounds:
    def test_lowest_and_highest_finite_score(self):
        bounds = CalibratedBounds()
        assert bounds.calibrate(torch.tensor([[3.0, NAN], [-7.5, math.inf], [-math.inf, 2.0]])) == (-7.5, 3.0)
        assert bounds.value == (-7.5, 3.0)

    @pytest.mark.parametrize(
        ("scores", "counted"),
        [([], "0 finite of 0"), ([NAN, math.inf], "0 finite of 2"), ([2.0], "1 finite"), ([2.0, 2.0], "2 finite")],
    )
    def test_scores_that_give_no_bounds(self, scores, counted):
        bounds = CalibratedBounds()
        with pytest.raises(ValueError, match=counted):
            bounds.calibrate(torch.tensor(scores))
        assert bounds.value is None

    @pytest.mark.parametrize("scores", [None, [0.1, 1 / 3], [-1.7e308, 5e-324]])
    def test_state_survives_json_to_the_bit(self, scores):
        bounds, restored = CalibratedBounds(), CalibratedBounds()
        if scores is not None:
            bounds.calibrate(torch.tensor(scores, dtype=torch.float64))
        restored.load_state_dict(json.loads(json.dumps(bounds.state_dict())))
        assert restored.value == bounds.value

    @pytest.mark.parametrize("state", [{"low": 2.0, "high": 1.0}, {"low": NAN, "high": 1.0}])
    def test_state_that_holds_no_bounds(self, state):
        with pytest.raises(ValueError, match=r"^The saved low and high must"):
            CalibratedBounds().load_state_dict(state)

    @pytest.mark.parametrize("state", [{"low": None, "high": 1.0}, {"low": 1.0, "high": None}])
    def test_half_a_state_is_none(self, state):
        bounds = CalibratedBounds()
        bounds.calibrate(torch.tensor([0.0, 1.0]))
        bounds.load_state_dict(state)
        assert bounds.value is None


class TestRescaling:
    def test_extremes_are_those_of_each_rows_members(self):
        scores = torch.tensor([[3.0, -1.0, 9.0], [4.0, 5.0, 6.0]])
        low, high = extremes(scores, torch.tensor([[True, True, False], [False, False, False]]))
        assert low.tolist() == [[-1.0], [math.inf]]
        assert high.tolist() == [[3.0], [-math.inf]]

    def test_extremes_of_one_row_and_of_several_dimensions(self):
        low, high = extremes(torch.tensor([3.0, -1.0, 9.0]), torch.ones(3, dtype=torch.bool))
        assert (low.tolist(), high.tolist()) == ([-1.0], [9.0])
        blocks = torch.arange(8.0).reshape(2, 2, 2)
        low, high = extremes(blocks, torch.ones_like(blocks, dtype=torch.bool))
        assert low.flatten().tolist() == [0.0, 2.0, 4.0, 6.0]
        assert high.flatten().tolist() == [1.0, 3.0, 5.0, 7.0]

    def test_by_hand(self):
        scores = torch.tensor([1.0, 2.0, 5.0, 9.0, -3.0], dtype=torch.float64)
        low, high = torch.tensor(1.0), torch.tensor(5.0)
        assert rescale(scores, low, high, eps=0.0).tolist() == [0.0, 0.25, 1.0, 2.0, -1.0]
        assert rescale(scores, low, high, eps=4.0).tolist() == [0.0, 0.125, 0.5, 1.0, -0.5]

    def test_the_farthest_scores_of_trls_matrix_and_the_nearest(self):
        largest, smallest = torch.finfo(torch.float32).max, torch.finfo(torch.float32).smallest_normal
        far = torch.tensor([-largest, 0.0, largest], dtype=torch.float64)
        assert rescale(far, far[0], far[-1], eps=1e-6).tolist() == [0.0, 0.5, 1.0]
        near = torch.tensor([0.0, smallest], dtype=torch.float64)
        assert rescale(near, near[0], near[-1], eps=0.0).tolist() == [0.0, 1.0]
        # A large eps counts in full beside the spread.
        assert rescale(far, far[0], far[-1], eps=largest).tolist() == pytest.approx([0.0, 1 / 3, 2 / 3])

    def test_members_that_do_not_differ_take_the_flat_value(self):
        scores = torch.tensor([[2.0, 2.0, 7.0], [1.0, 3.0, 7.0]], dtype=torch.float64)
        member = torch.tensor([[True, True, False]] * 2)
        placed = rescale_among(scores, member, eps=2.0, flat=0.75)
        assert placed[:, :2].tolist() == [[0.75, 0.75], [0.0, 0.5]]

    @pytest.mark.parametrize(
        ("low", "high"),
        [(math.nan, 1.0), (0.0, math.nan), (-math.inf, 1.0), (0.0, math.inf), (math.inf, math.inf), (1.0, 0.5)],
    )
    def test_bounds_that_no_score_can_be_rescaled_by(self, low, high):
        with pytest.raises(ValueError, match="low and high must be finite and in this order"):
            check_bounds(low, high)
        check_bounds(1.0, 1.0)
