"""Solvers: the budget and every limit hold for any scores, shapes and ties; and capacity goes where it pays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.engine.allocation.solvers import AllocationState, drawn, scalar_weights, swap, trimmed_ranks

scores = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 0.5, float("nan"), float("inf")])


@st.composite
def standings(draw: st.DrawFn) -> AllocationState:
    """Return any state of adapters: odd shapes, ties, NaN, equal scores, rank 0, no slack or some."""
    n = draw(st.integers(1, 6))
    max_rank = [draw(st.integers(1, 6)) for _ in range(n)]
    rank = [draw(st.integers(0, m)) for m in max_rank]
    return AllocationState(
        [np.array([draw(scores) for _ in range(r)]) for r in rank],
        [np.array([draw(st.booleans()) for _ in range(r)], dtype=bool) for r in rank],
        np.array([draw(scores) for _ in range(n)]),
        np.array([draw(st.sampled_from([3, 8, 8, 13, 40])) for _ in range(n)]),
        np.array(max_rank),
        draw(st.integers(0, 2)),
        draw(st.integers(0, 60)),
    )


def check(standing: AllocationState, moves: list, most: int, per_module: int) -> None:
    """Hold every limit against what the moves add up to."""
    rank, cost = standing.rank, standing.cost
    gave, got = np.zeros(len(rank), int), np.zeros(len(rank), int)
    for move in moves:
        got[move.receiver.module] += 1
        for donor in move.donors:
            gave[donor.module] += 1
            assert standing.may_go[donor.module][donor.component]
    dropped = [(d.module, d.component) for move in moves for d in move.donors]
    assert len(dropped) == len(set(dropped))
    after = rank - gave + got
    assert (got - gave) @ cost <= standing.slack
    assert (after <= standing.max_rank).all()
    assert (after >= np.minimum(rank, standing.min_rank)).all()
    assert got.sum() <= most
    assert (got <= per_module).all()
    assert (gave <= per_module).all()
    assert not ((gave > 0) & (got > 0)).any()


def swaps_within_limits(standing: AllocationState, moves: int, per_module: int, hysteresis: float) -> None:
    """Hold one swap to every limit, and its gain to the hysteresis."""
    swaps = swap(standing, moves=moves, per_module=per_module, hysteresis=hysteresis)
    check(standing, swaps, moves, per_module)
    for move in swaps:
        loss = sum(donor.score for donor in move.donors)
        assert np.isfinite(loss)
        assert move.receiver.score > (1 + hysteresis) * loss


test_swap_keeps_every_limit = given(standings(), st.integers(1, 5), st.integers(1, 3), st.floats(0, 2))(
    swaps_within_limits
)
test_swap_keeps_every_limit_over_many = pytest.mark.torture(
    settings(max_examples=3000)(
        given(standings(), st.integers(1, 5), st.integers(1, 3), st.floats(0, 2))(swaps_within_limits)
    )
)


@given(standings(), st.integers(0, 100))
def test_random_control_keeps_the_limits_and_moves_by_chance(standing: AllocationState, seed: int) -> None:
    swaps = swap(drawn(standing, seed), moves=4, per_module=2, hysteresis=0.0)
    check(drawn(standing, seed), swaps, 4, 2)


def test_swap_takes_the_least_and_gives_to_the_most() -> None:
    standing = AllocationState(
        [np.array([5.0, 1.0]), np.array([9.0, 8.0]), np.array([3.0, 4.0])],
        [np.ones(2, bool)] * 3,
        np.array([1.0, 8.0, 3.0]),
        np.array([10, 10, 10]),
        np.array([4, 4, 4]),
        1,
        0,
    )
    (move,) = swap(standing, moves=1, per_module=2, hysteresis=0.1)
    assert (move.donors[0].module, move.donors[0].component, move.receiver.module) == (0, 1, 1)


def test_cheap_donors_pay_for_a_dear_component_and_slack_is_spent_first() -> None:
    standing = AllocationState(
        [np.array([1.0, 1.0, 1.0]), np.array([50.0])],
        [np.ones(3, bool), np.ones(1, bool)],
        np.array([1.0, 50.0]),
        np.array([4, 10]),
        np.array([6, 2]),
        1,
        3,
    )
    (move,) = swap(standing, moves=3, per_module=2, hysteresis=0.0)
    assert len(move.donors) == 2
    assert move.receiver.module == 1


def test_uniform_ranks_are_trimmed_by_as_little_as_possible() -> None:
    assert trimmed_ranks(4, [10, 30, 10], 200) == [4, 4, 4]
    assert trimmed_ranks(4, [10, 30, 10], 199) == [4, 4, 3]
    assert trimmed_ranks(4, [10, 30, 10], 185) == [3, 4, 3]


def test_weights_have_mean_one_and_follow_importance() -> None:
    weights = scalar_weights(np.array([1.0, 3.0, np.nan, 0.0]))
    assert weights.mean() == pytest.approx(1.0)
    assert weights[1] == pytest.approx(3 * weights[0])
    assert weights[2] < 1e-12
