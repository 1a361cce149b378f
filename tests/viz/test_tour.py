"""The tour's stops, and which run it picks: by what the run recorded."""

from __future__ import annotations

import pandas as pd
import pytest

from dynlora.viz import tour

OWN: dict[str, object] = {
    "id": "a",
    "model": "m",
    "data": "d",
    "max_steps": 9,
    "params": {"budget": 1},
    "is_own": True,
    "metrics": {"accuracy": 0.5},
    "metric": "accuracy",
    "strategy": "dynamic",
}


def merit(won: list[float], events: int = 5, recorded: tuple[str, ...] = tour.NEEDED) -> float | None:
    """Return the merit of a run in which modules of importance 1, 2, 3 and 4, before a move, won these ranks."""
    ranks = pd.DataFrame({0: 4.0, 10: [4.0 + rank for rank in won]})
    importance = pd.DataFrame({0: [1.0, 2, 3, 4], 10: [40.0, 3, 2, 1]})
    return tour.merit_of(recorded, range(5, 5 + events), ranks, importance)


def test_a_run_that_moved_by_merit_is_picked_and_one_that_moved_by_chance_is_not() -> None:
    assert merit([-2, -1, 1, 2]) == pytest.approx(1.0)
    by_half = merit([-1, -2, 2, 1])
    assert by_half is not None
    assert by_half == pytest.approx(0.6)
    assert merit([2, 1, -1, -2]) is None
    assert merit([0, 0, 0, 0]) is None
    assert merit([-2, -1, 1, 2], events=2) is None
    assert merit([-2, -1, 1, 2], recorded=tour.NEEDED[1:]) is None
    assert tour.merit_of(tour.NEEDED, [5, 6, 7], pd.DataFrame({0: [1.0]}), pd.DataFrame()) is None


@pytest.mark.parametrize("difference", [{"model": "b"}, {"max_steps": 3}, {"params": {"budget": 2}}, {"metrics": {}}])
def test_runs_are_alike_at_the_same_terms(difference: dict[str, object]) -> None:
    rows = [OWN, {**OWN, "id": "b"}, {**OWN, "id": "c", **difference}]
    assert tour.alike(rows, "a") == ["a", "b"]
    assert tour.alike(rows, "a", at_most=1) == ["a"]


def test_a_run_that_can_be_compared_comes_before_one_that_stands_alone() -> None:
    sample = {**OWN, "id": "b", "is_own": False}
    rows = [OWN, {**OWN, "id": "e"}, sample, {**sample, "id": "c", "strategy": "lora"}]
    assert tour.comparable_first(rows) == [["b", "c"], ["a", "e"]]
    assert tour.comparable_first(rows[:2]) == [[], ["a", "e"]]


def test_the_tour_stays_on_a_sample_whatever_is_trained_meanwhile() -> None:
    """An own run with a better match of rank and importance took the place of the sample."""
    rows = [OWN, {**OWN, "id": "b", "strategy": "lora"}, {**OWN, "id": "c", "is_own": False}]
    assert tour.candidates(rows) == [["c"], ["a", "b"]]
    assert tour.candidates(rows[:2]) == [["a", "b"]]
    assert tour.candidates([]) == []
