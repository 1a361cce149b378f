"""Intervals and rank correlation: their formulas, what holds of all of them, and what they say of almost nothing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.analysis import stats

values = st.lists(st.floats(-5, 5), min_size=2, max_size=40).map(np.array)


# --- means


@given(values, st.floats(-3, 3), st.floats(0.1, 4))
def test_a_mean_moves_and_stretches_with_its_values_and_is_surer_of_more(
    sample: np.ndarray, shift: float, scale: float
) -> None:
    for reach in (stats.normal_reach, stats.t_reach):
        assert reach(sample * scale + shift) == pytest.approx(scale * reach(sample), abs=1e-9)
        assert reach(np.tile(sample, 4)) <= reach(sample) * 0.75 + 1e-12
    assert stats.normal_reach(sample) <= stats.t_reach(sample)
    assert stats.t_reach(sample, 0.99) >= stats.t_reach(sample) >= stats.t_reach(sample, n=len(sample) + 1)


def test_means_are_textbook() -> None:
    sample = np.array([1.0, 2.0, 4.0, 7.0])
    deviation = np.std(sample, ddof=1)
    assert stats.normal_reach(sample) == pytest.approx(1.959964 * deviation / 2, rel=1e-6)
    assert stats.t_reach(list(sample)) == pytest.approx(3.182446 * deviation / 2, rel=1e-6)
    assert math.isnan(stats.normal_reach(sample[:1]))
    assert math.isnan(stats.normal_reach(sample[:0]))


def test_a_mean_over_tokens_is_over_texts() -> None:
    same = stats.per_token(np.array([2.0, 4.0, 6.0]), np.array([2, 4, 6]))
    assert same == {"mean": 1.0, "low": 1.0, "high": 1.0, "texts": 3, "tokens": 12}
    equal = stats.per_token(np.array([1.0, 3.0]) * 10, np.array([10, 10]))
    assert equal["mean"] == 2.0
    assert equal["high"] - 2.0 == pytest.approx(stats.normal_reach(np.array([1.0, 3.0])))
    single = stats.per_token(np.array([3.0]), np.array([2]))
    assert single["low"] == single["mean"] == single["high"] == 1.5
    assert stats.per_token(np.zeros(2), np.zeros(2, int))["mean"] == 0


def test_a_mean_over_tokens_is_held_about_95_times_in_100() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        counts = rng.integers(1, 30, 60)
        estimate = stats.per_token(counts * (1 + rng.normal(0, 0.5, 60)), counts)
        held += estimate["low"] <= 1 <= estimate["high"]
    assert 0.9 < held / 400 < 0.98


# --- shares


@given(st.integers(1, 60), st.floats(0, 1))
def test_a_share_lies_in_its_interval_which_stays_within_0_and_1(n: int, share: float) -> None:
    right = round(share * n)
    low, high = stats.share_interval(right, n)
    assert 0 <= low <= right / n + 1e-9
    assert right / n - 1e-9 <= high <= 1
    assert high - low > 0.03
    assert (1 - high, 1 - low) == pytest.approx(stats.share_interval(n - right, n))
    of_more = stats.share_interval(4 * right, 4 * n)
    assert of_more[1] - of_more[0] < high - low


def test_a_share_is_wilsons_and_of_nothing_unknown() -> None:
    assert stats.share_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert all(math.isnan(end) for end in stats.share_interval(0, 0))


def test_a_paired_difference_of_shares_is_agresti_and_mins() -> None:
    low, high = stats.paired_share_interval(8, 2, 50)
    centre, spread = 6 / 52, math.sqrt((8 + 2 + 1) - 36 / 52) / 52
    assert (low, high) == pytest.approx((centre - 1.96 * spread, centre + 1.96 * spread), abs=1e-5)


def test_a_paired_difference_of_shares_has_width_where_all_answers_are_alike() -> None:
    low, high = stats.paired_share_interval(0, 0, 20)
    assert low == -high
    assert 0.08 < high < 0.1


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 200))
def test_a_paired_difference_of_shares_turns_with_the_sides(better: int, worse: int, alike: int) -> None:
    n = max(1, better + worse + alike)
    low, high = stats.paired_share_interval(better, worse, n)
    assert -1 <= low <= high <= 1
    assert (-high, -low) == pytest.approx(stats.paired_share_interval(worse, better, n))


# --- bootstraps


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.integers(0, 9))
def test_a_bootstrap_is_the_same_again_and_lies_in_the_range_of_the_values(sample: list[float], seed: int) -> None:
    low, high = stats.bootstrap_interval(np.array(sample), seed)
    assert (low, high) == stats.bootstrap_interval(np.array(sample), seed)
    assert min(sample) - 1e-9 <= low <= high <= max(sample) + 1e-9


def test_intervals_of_nothing_are_unknown() -> None:
    for ends in (stats.bootstrap_interval(np.empty(0)), stats.percentile_interval(np.empty(0))):
        assert all(math.isnan(end) for end in ends)


def test_a_paired_difference_covers_the_truth_as_often_as_it_says() -> None:
    hits = 0
    for number in range(60):
        draw = np.random.default_rng(number)
        interval = stats.paired_difference([draw.normal(0.1, 1, 300) for _ in range(5)], draws=300)
        hits += interval.low <= 0.1 <= interval.high
    assert hits >= 53
    assert stats.paired_difference([np.ones(5)] * 2) == stats.Difference(1, 1, 1, 2, 5)


def test_many_examples_in_blocks_keep_the_width() -> None:
    sample = np.random.default_rng(0).normal(0, 1, 40_000)
    interval = stats.paired_difference([sample], draws=1000)
    assert interval.high - interval.low == pytest.approx(2 * stats.normal_reach(sample), rel=0.15)


# --- rank correlation


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=20))
def test_spearman_is_that_of_pandas(pairs: list[tuple[int, int]]) -> None:
    first, second = (pd.Series(side, dtype=float) for side in zip(*pairs, strict=True))
    rho = stats.spearman(first, second)
    if first.nunique() < 2 or second.nunique() < 2:
        assert math.isnan(rho)
    else:
        assert rho == pytest.approx(first.corr(second, method="spearman"))


def test_spearman_leaves_out_what_is_unknown() -> None:
    assert stats.spearman([1, 2, np.nan, 4], [1, 3, 0, 9]) == pytest.approx(1)
    assert math.isnan(stats.spearman([1, 2, np.nan], [1, 2, 3]))


def test_the_interval_of_a_rank_correlation() -> None:
    first = np.arange(12.0)
    assert stats.spearman_interval(first, first) == pytest.approx((1, 1))
    low, high = stats.spearman_interval(first, np.random.default_rng(1).permutation(12).astype(float))
    assert -1 <= low < 0 < high <= 1
    assert all(math.isnan(end) for end in stats.spearman_interval(first, np.zeros(12)))


@pytest.mark.parametrize("n", range(2, stats.FEWEST_PAIRS))
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1)])
def test_too_few_pairs_are_on_no_side_of_0(low: float, high: float, n: int) -> None:
    assert stats.side_of_0(low, high, n) == "few"


def test_an_interval_of_enough_pairs_is_above_or_below_0_or_holds_it() -> None:
    sides = [stats.side_of_0(*ends, stats.FEWEST_PAIRS) for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (0, 0))]
    assert sides == ["above", "below", "unclear", "unclear"]
    assert 2 * 0.5 ** (stats.FEWEST_PAIRS - 1) > 0.05 > 2 * 0.5**stats.FEWEST_PAIRS
