"""Mean and deviation against exact arithmetic, for scores of every size that TRL's single-precision matrix has."""

import math
import statistics
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_hybrid.hybrid.moments import deviation, mean


rows = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=8)


def column(values):
    return torch.tensor(values, dtype=torch.float64), torch.ones(len(values), dtype=torch.bool)


@given(rows)
def test_mean_is_the_exact_one(values):
    exact = float(sum(map(Fraction, values)) / len(values))
    largest = max(map(abs, values))
    assert mean(*column(values)).item() == pytest.approx(exact, rel=1e-12, abs=max(1e-15 * largest, 1e-322))


@given(rows)
def test_deviation_is_the_exact_one(values):
    fractions = [Fraction(value) for value in values]
    scale = max(map(abs, fractions)) or Fraction(1)
    exact = float(Fraction(statistics.pstdev([float(f / scale) for f in fractions])) * scale)
    spread = float((max(fractions) - min(fractions)) / 2)
    result = deviation(*column(values)).item()
    assert math.isfinite(result)
    assert result == pytest.approx(exact, rel=1e-7, abs=max(1e-7 * spread, 1e-322))


def test_deviation_of_equal_values_is_exactly_zero():
    assert deviation(*column(torch.tensor([0.1] * 7).tolist())).item() == 0.0


def test_no_member_is_nan_and_other_rows_do_not_care():
    values = torch.tensor([[1.0, 3.0, math.nan], [math.inf, 2.0, 9.0]], dtype=torch.float64)
    member = torch.tensor([[True, True, False], [False, False, False]])
    assert mean(values, member).tolist() == pytest.approx([2.0, math.nan], nan_ok=True)
    assert deviation(values, member).tolist() == pytest.approx([1.0, math.nan], nan_ok=True)
