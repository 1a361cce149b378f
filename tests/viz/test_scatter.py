"""Numbers of many runs: which there are, what differs, axes and quarters, and the figures that show them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.viz.compare import many_cards, scatter_figures, scatter_model, text
from dynlora.viz.kit import theme
from tests.viz.drawn import layout_of, traces_of
from tests.viz.listed import listed, swept_rows
from tests.viz.runs import HOSTILE

ROWS = swept_rows()


def test_the_numbers_of_a_run_are_results_then_costs_then_settings() -> None:
    table = scatter_model.number_table([listed(1), listed(2, accuracy=None, status="queued")])
    columns = [list(table).index(name) for name in ("accuracy", "params.used", "time.train_s", "adapter.rank")]
    assert columns == sorted(columns)
    assert table["params.used"].tolist() == [3964, 3964]
    assert np.isnan(table["accuracy"].iloc[1])
    assert scatter_model.varying(table) == ["time.train_s"]


def test_what_is_no_finite_number_is_none() -> None:
    row = listed(1, merge=True, depth=10**400, init="eva") | {"metrics": {"a": None, "b": float("nan")}, "seed": None}
    assert {"a", "b", "seed", "strategy.depth", "strategy.merge", "strategy.init"}.isdisjoint(
        scatter_model.numbers(row)
    )


def test_swept_settings_the_most_varied_first() -> None:
    settings = scatter_model.swept(ROWS)
    assert list(settings) == ["train.lr", "adapter.rank", "strategy.name"]
    assert settings["adapter.rank"][:6] == [2, 2, 2, 4, 4, 4]
    assert set(settings["strategy.name"]) == {"dynamic", "lora"}
    odd = scatter_model.swept([listed(1), listed(2, merge=True), listed(3, merge=False, data="/home/x/my data")])
    assert odd["strategy.merge"] == [None, "yes", "no"]
    assert odd["data.name"] == ["sst2", "sst2", "my data"]
    assert scatter_model.in_order([None, "b", 10, "a", 2, 2]) == [None, 2, 10, "a", "b"]


@given(st.lists(st.one_of(st.none(), st.integers(-9, 9), st.floats(1e-6, 1e6), st.sampled_from("abc")), min_size=1))
def test_places_lie_on_the_axis_and_keep_the_order_of_numbers(values: list[float | str | None]) -> None:
    axis = scatter_model.axis("x", values)
    known = [place for place in axis.places if not math.isnan(place)]
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in known)
    assert len(axis.places) == len(axis.words) == len(values)
    assert 0 < len(axis.ticks) <= scatter_model.TICKS or all(value is None for value in values)
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        order = sorted(range(len(numbers)), key=lambda i: numbers[i])
        assert [axis.places[i] for i in order] == pytest.approx(sorted(known), abs=1e-9)


def test_numbers_that_reach_far_are_placed_by_their_logarithm() -> None:
    assert scatter_model.axis("lr", [1e-4, 1e-3, 1e-2]).places == pytest.approx((0, 0.5, 1))
    assert scatter_model.axis("rank", [2, 4, 6]).places == pytest.approx((0, 0.5, 1))


def test_quarters_by_result() -> None:
    best, second, third, last, none = scatter_model.QUARTERS
    assert scatter_model.quarters([0.1, 0.2, 0.3, 0.4, None], low_is_good=False) == [last, third, second, best, none]
    assert scatter_model.quarters([0.1, 0.2, 0.3, 0.4], low_is_good=True) == [best, second, third, last]
    assert scatter_model.quarters([0.5, 0.5], low_is_good=False) == [best, best]


def test_the_scatter_shows_every_run_in_the_look_of_its_strategy() -> None:
    numbers = scatter_model.number_table(ROWS)
    points = numbers[["name", "strategy"]].assign(x=numbers["train.lr"], y=numbers["accuracy"])
    figure = scatter_figures.scatter(points, ("learning rate", "accuracy"), theme.LIGHT, logarithmic=(True, False))
    assert [trace.name for trace in traces_of(figure)] == ["dynamic", "lora"]
    assert sum(len(trace.x) for trace in traces_of(figure)) == 36
    assert layout_of(figure).xaxis.type == "log"
    caption = text.scatter(points, ("learning rate", "accuracy"), 40)
    assert caption.startswith("36 of 40 runs shown; accuracy rises with learning rate (rank correlation 0.")
    assert "too few" in text.scatter(points.head(2), ("a", "b"), 2)


def test_the_lines_of_the_best_quarter_lie_on_top_and_are_described() -> None:
    axes = scatter_model.axes(ROWS, ["train.lr", "strategy.name"], ["accuracy"])
    lines = scatter_model.lines(ROWS, axes, "accuracy", low_is_good=False)
    figure = scatter_figures.parallel(lines, axes, theme.DARK)
    assert [trace.name for trace in traces_of(figure)][-1] == "Best quarter"
    assert sum(len(trace.x) for trace in traces_of(figure)) == 36 * 4
    caption = text.parallel(lines, ["learning rate", "strategy"], "accuracy")
    assert caption == "36 runs. The 9 runs of the best quarter by accuracy share learning rate 0.004."
    assert "too few for quarters" in text.parallel(lines.head(2), [], "accuracy")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_in_a_figure_is_text(text: str) -> None:
    rows = [listed(i, strategy=text, name=text, data=text, init=f"{text}{i}", accuracy=0.1 * i) for i in range(5)]
    numbers = scatter_model.number_table(rows)
    points = numbers[["name", "strategy"]].assign(x=numbers["time.train_s"], y=numbers["accuracy"])
    axes = scatter_model.axes(rows, list(scatter_model.swept(rows)), ["accuracy"])
    lines = scatter_model.lines(rows, axes, "accuracy", low_is_good=False)
    for figure in (
        scatter_figures.scatter(points, (text, text), theme.LIGHT),
        scatter_figures.parallel(lines, axes, theme.LIGHT),
    ):
        drawn = str(figure.to_json()).replace("\\u003c", "<")
        assert "<img" not in drawn
        assert "$x" not in drawn
        assert "%{customdata[0]} " not in drawn


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
