"""The interval of a paired difference, against its formula and its limits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.kinds.intervals import paired_interval


def test_it_is_agresti_and_min_s() -> None:
    low, high = paired_interval(8, 2, 50)
    centre, spread = 6 / 52, math.sqrt((8 + 2 + 1) - 36 / 52) / 52
    assert (low, high) == pytest.approx((centre - 1.96 * spread, centre + 1.96 * spread), abs=1e-5)


def test_it_has_width_where_all_answers_are_alike() -> None:
    low, high = paired_interval(0, 0, 20)
    assert low == -high
    assert 0.08 < high < 0.1


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 200))
def test_it_holds_the_difference_and_turns_with_the_sides(better: int, worse: int, alike: int) -> None:
    n = max(1, better + worse + alike)
    low, high = paired_interval(better, worse, n)
    assert -1 <= low <= high <= 1
    assert (-high, -low) == pytest.approx(paired_interval(worse, better, n))
