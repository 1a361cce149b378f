"""Boxes over upright axes pick the runs within one on each axis that has any."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynlora.viz.compare import many_cards, scatter_model

NAN = float("nan")
PLACES = [(0.0, 0.5, 1.0, NAN), (1.0, 0.2, 0.4, 0.9)]


def box(left: float, right: float, low: float, high: float) -> dict[str, list[float]]:
    return {"x": [left, right], "y": [high, low]}


def picked(*boxes: dict[str, list[float]]) -> list[int] | None:
    return many_cards.picked(PLACES, many_cards.intervals(boxes, len(PLACES)))


def test_a_box_picks_on_the_axes_under_it() -> None:
    assert picked() is picked(box(0.2, 0.8, 0, 1)) is None
    assert picked(box(-0.1, 0.1, 0.4, 1)) == [1, 2]
    assert picked(box(-0.1, 1.1, 0.4, 1)) == [2], "both axes under one box"
    assert picked(box(-0.1, 0.1, 0.4, 1), box(0.9, 1.1, 0, 0.3)) == [1], "each axis narrows"
    assert picked(box(0.9, 1.1, 0, 0.3), box(0.9, 1.1, 0.8, 1)) == [0, 1, 3], "boxes on one axis add up"


@given(st.lists(st.tuples(st.floats(-1, 3), st.floats(-1, 3), st.floats(0, 1), st.floats(0, 1)), max_size=4))
def test_no_box_picks_what_lies_outside(sides: list[tuple[float, float, float, float]]) -> None:
    brushed = many_cards.intervals([box(*one) for one in sides], len(PLACES))
    for run in many_cards.picked(PLACES, brushed) or []:
        for axis, parts in brushed.items():
            assert any(low <= PLACES[axis][run] <= high for low, high in parts)


def test_runs_are_listed_best_first_and_those_without_a_result_last() -> None:
    rows = [
        {"id": str(n), "metrics": {} if value is None else {"accuracy": value}}
        for n, value in enumerate((0.5, None, 0.9))
    ]
    assert [row["id"] for row in scatter_model.best_first(rows, "accuracy", low_is_good=False)] == ["2", "0", "1"]
    assert [row["id"] for row in scatter_model.best_first(rows, "accuracy", low_is_good=True)] == ["0", "2", "1"]
