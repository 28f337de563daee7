"""Calibrated bounds: what they are taken from, and that they survive a checkpoint."""

import json
import math

import pytest
import torch

from trl_hybrid.hybrid.bounds import CalibratedBounds


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
        with pytest.raises(ValueError, match="saved low and high"):
            CalibratedBounds().load_state_dict(state)
