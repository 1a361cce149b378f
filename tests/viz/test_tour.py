"""The tour's stops, and which run it picks: by what the run recorded."""

# pyright: reportArgumentType=false
# (pandas comes without types of its own)
from __future__ import annotations

import pandas as pd
import pytest

from dynlora.viz import tour


def moves(better: int, worse: int, events: int) -> pd.DataFrame:
    """Return moves of which `better` went to the higher score and `worse` to the lower, over some events."""
    scores = [(1.0, 2.0)] * better + [(2.0, 1.0)] * worse
    rows = [(i % events, donor, receiver) for i, (donor, receiver) in enumerate(scores)]
    return pd.DataFrame(rows, columns=["step", "donor_score", "receiver_score"])


def test_stops_have_neighbours() -> None:
    assert len(tour.STOPS) == 6
    first, before, after, number = tour.neighbours("nonsense")
    assert (first.key, before, after and after.key, number) == ("rank", None, "importance", 1)
    last, before, after, number = tour.neighbours("worth")
    assert (last.key, before and before.key, after, number) == ("worth", "gates", None, 6)


def test_words_are_short_and_plain() -> None:
    for stop in tour.STOPS:
        assert 20 < len(" ".join(stop.words).split()) < 110
        assert not set("*_`<>[]$:") & set(" ".join(stop.words).replace(": ", " "))


def test_a_run_that_moved_by_merit_comes_before_one_that_moved_by_chance() -> None:
    recorded = [*tour.NEEDED, "grad_norm"]
    by_merit, by_chance = (tour.merit(recorded, moves(*counts, events=5)) for counts in ((9, 1), (5, 5)))
    assert by_merit is not None
    assert by_chance is not None
    assert by_merit > by_chance
    assert tour.merit(recorded, moves(9, 1, events=2)) is None
    assert tour.merit(recorded[1:], moves(9, 1, events=5)) is None
    assert tour.merit([], moves(0, 0, events=1)) is None


@pytest.mark.parametrize("difference", [{"model": "b"}, {"max_steps": 3}, {"params": {"budget": 2}}, {"metrics": {}}])
def test_runs_are_alike_at_the_same_terms(difference: dict[str, object]) -> None:
    own = {"id": "a", "model": "m", "data": "d", "max_steps": 9, "params": {"budget": 1}, "is_own": False,
           "metrics": {"accuracy": 0.5}, "metric": "accuracy"}  # fmt: skip
    rows = [own, {**own, "id": "b"}, {**own, "id": "c", **difference}]
    assert tour.alike(rows, "a") == ["a", "b"]
    assert tour.alike(rows, "a", at_most=1) == ["a"]
