"""Suggested rates: whatever a curve is, the answer is a rate of its range or says why there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.analysis.advice import BELOW, RateCurve, level, mean_curve, span, suggested_rate
from dynlora.engine.evaluation.to_learn import AMPLE, TIGHT, TOO_SMALL, bits_to_learn, verdict

RATES = tuple(np.geomspace(1e-5, 1.0, 100).tolist())


def valley(at: float, *, noise: float = 0.0, seed: int = 0) -> RateCurve:
    """Return a curve that falls from 2 to 1 a decade before a rate, and climbs to 5 after it."""
    x = np.log10(np.array(RATES) / at)
    losses = 2 - 1 / (1 + np.exp(-8 * (x + 0.7))) + 4 / (1 + np.exp(-8 * (x - 0.5)))
    return RateCurve(RATES, tuple((losses + noise * np.random.default_rng(seed).normal(size=len(x))).tolist()))


finite_or_not = st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf)


@given(st.lists(finite_or_not, min_size=1, max_size=100), st.sampled_from(sorted(BELOW)))
def test_any_curve_has_a_rate_of_its_range_or_a_reason(losses: list[float], rule: str) -> None:
    curve = RateCurve(RATES[: len(losses)], tuple(losses))
    suggestion = suggested_rate(curve, rule)
    assert (suggestion.rate is None) == (suggestion.why in ("flat", "breaks", "short"))
    if suggestion.rate is not None:
        assert curve.rates[0] <= suggestion.rate <= curve.rates[-1]
        assert suggestion.steepest is not None
        if suggestion.lowest is not None:
            assert suggestion.steepest <= suggestion.lowest
        if suggestion.lowest is not None and suggestion.breaks is not None:
            assert suggestion.lowest <= suggestion.breaks
    assert level(span([curve])) in ("high", "moderate", "low")


@given(st.floats(1e-3, 0.1), st.floats(0.01, 100), st.floats(-10, 10))
def test_the_rate_moves_with_the_curve_and_not_with_the_unit_of_its_loss(at: float, unit: float, up: float) -> None:
    curve = valley(at)
    suggestion = suggested_rate(curve)
    assert suggestion.rate is not None
    assert suggestion.breaks is not None
    assert suggestion.rate < suggestion.breaks
    assert at / 10 < suggestion.rate < at
    scaled = suggested_rate(RateCurve(RATES, tuple(unit * loss + up for loss in curve.losses)))
    assert scaled.rate == pytest.approx(suggestion.rate, rel=0.2)


@given(st.integers(0, 10_000))
def test_noise_moves_the_rate_by_less_than_a_factor_of_three(seed: int) -> None:
    clear, noisy = suggested_rate(valley(0.02)).rate, suggested_rate(valley(0.02, noise=0.1, seed=seed)).rate
    assert clear is not None
    assert noisy is not None
    assert clear / 3 < noisy < clear * 3


def test_a_curve_that_only_falls_has_no_rise_and_no_break() -> None:
    suggestion = suggested_rate(RateCurve(RATES, tuple(np.linspace(3, 1, 100).tolist())))
    assert (suggestion.lowest, suggestion.breaks) == (None, None)
    assert suggestion.rate is not None
    assert suggestion.rate < RATES[-1]


def test_a_curve_that_breaks_at_once_has_no_rate() -> None:
    for losses in ((2.0, math.nan), (2.0, *(2.0 + 0.2 * n for n in range(40)))):
        suggestion = suggested_rate(RateCurve(RATES[: len(losses)], losses))
        assert (suggestion.rate, suggestion.why) == (None, "breaks")
        assert suggestion.breaks is not None


def test_nan_ends_the_curve_and_is_the_break() -> None:
    whole = valley(0.02)
    n = 68
    cut = suggested_rate(RateCurve(RATES[: n + 1], (*whole.losses[:n], math.nan)))
    assert cut.breaks == RATES[n]
    assert cut.rate == pytest.approx(suggested_rate(whole).rate, rel=0.1)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_flat_curve_has_no_rate(noise: float) -> None:
    losses = 2 + noise * np.random.default_rng(1).normal(size=100)
    assert suggested_rate(RateCurve(RATES, tuple(losses.tolist()))).why == "flat"


def test_a_short_test_says_nothing() -> None:
    assert suggested_rate(RateCurve(RATES[:5], (2.0,) * 5)).why == "short"


def test_the_mean_of_tests_breaks_where_the_first_of_them_does() -> None:
    short = RateCurve(RATES[:60], valley(0.02).losses[:60])
    together = mean_curve([short, valley(0.02)])
    assert together.rates == RATES
    assert together.losses[:60] == pytest.approx(short.losses)
    assert math.isnan(together.losses[60])
    assert suggested_rate(together).breaks == RATES[60]


def test_halves_that_agree_are_sure_and_those_that_do_not_are_not() -> None:
    assert level(span([valley(0.02, noise=0.01)])) == "high"
    assert level(span([valley(0.02), valley(0.002)])) == "low"
    assert level(span([RateCurve(RATES, (2.0,) * 100)])) == "low"


@given(st.floats(0, 20), st.floats(0, 20), st.integers(0, 10**7), st.integers(1, 10**9))
def test_more_to_learn_never_makes_a_rank_roomier(nats: float, chance: float, examples: int, parameters: int) -> None:
    order = [AMPLE, TIGHT, TOO_SMALL]
    bits = bits_to_learn(nats, chance, examples)
    assert bits >= 0
    place = order.index(verdict(bits, parameters))
    assert order.index(verdict(bits_to_learn(nats + 1, chance, examples), parameters)) >= place
    assert order.index(verdict(bits, 2 * parameters)) <= place


def test_a_rank_is_tight_from_half_of_its_bits_on() -> None:
    assert [verdict(bits, 100) for bits in (100, 101, 200, 201)] == [AMPLE, TIGHT, TIGHT, TOO_SMALL]


def test_what_the_head_learns_by_itself_does_not_move_the_suggestion() -> None:
    curve = valley(0.02, noise=0.02)
    head = np.linspace(0, -3, len(RATES))
    moved = RateCurve(RATES, tuple((np.asarray(curve.losses) + head).tolist()), tuple(head.tolist()))
    suggestion = suggested_rate(moved)
    assert suggestion.breaks is not None
    assert suggestion.rate == suggested_rate(curve, "breaks").rate == suggestion.breaks / BELOW["breaks"]
    assert suggested_rate(mean_curve([moved, moved])).rate == pytest.approx(suggestion.rate)
    assert suggested_rate(curve).rate == suggested_rate(curve).steepest, "without a control"
    assert moved.halves()[1].effect == pytest.approx(curve.halves()[1].effect)
    assert mean_curve([moved, moved]).losses == pytest.approx(curve.losses)
