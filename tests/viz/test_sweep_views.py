"""Sweeps: what a cell averages, what a line leaves apart, and what is said of both."""

from __future__ import annotations

import numpy as np
import pytest

from dynlora.viz.compare import scatter_figures, sweep_model, text
from dynlora.viz.kit import theme
from tests.viz.drawn import layout_of, traces_of
from tests.viz.listed import listed, swept_rows
from tests.viz.runs import HOSTILE

ROWS = swept_rows()
ONE = ROWS[:18]


def test_a_cell_is_the_mean_over_seeds_with_its_spread_and_n() -> None:
    cells = sweep_model.grid(ONE, "train.lr", "adapter.rank", "accuracy").set_index(["down", "across"])
    assert len(cells) == 6
    mean, spread, n = (cells[column]["4", "0.004"] for column in ("mean", "spread", "n"))
    assert mean == pytest.approx(0.72 + 0.08 + 0.01 + 0.02)
    assert (spread, n) == (pytest.approx(0.01), 3)


def test_a_pair_that_was_not_run_is_empty_and_values_stay_in_order() -> None:
    rows = [
        listed(1, lr=1e-3, rank=8),
        listed(2, lr=1e-2, rank=16),
        listed(3, lr=1e-4, rank=8),
        listed(4, lr=1e-4, rank=16),
    ]
    cells = sweep_model.grid(rows, "train.lr", "adapter.rank", "accuracy")
    assert cells["across"].tolist()[:3] == ["0.0001", "0.001", "0.01"]
    assert cells["n"].tolist() == [1, 1, 0, 1, 0, 1]
    figure = scatter_figures.grid(cells, ("lr", "rank", "accuracy"), theme.LIGHT, low_is_good=False)
    assert np.isnan(traces_of(figure)[0].z[0][2])
    assert [one != "" for one in np.ravel(traces_of(figure)[0].text)] == [True, True, False, True, False, True]


def test_a_cell_says_what_was_measured_with_its_sign() -> None:
    rows = [listed(1, lr=1e-3, rank=8), listed(2, lr=1e-2, rank=16)]
    cells = sweep_model.grid(rows, "train.lr", "adapter.rank", "accuracy")
    cells["mean"] = cells["mean"].where(cells["mean"].isna(), [-0.02, np.nan, np.nan, 0.31])
    figure = scatter_figures.grid(cells, ("lr", "rank", "matthews"), theme.LIGHT, low_is_good=False)
    assert np.ravel(traces_of(figure)[0].text).tolist() == ["-0.020<br>n = 1", "", "", "0.310<br>n = 1"]


def test_what_a_mean_hides_is_said() -> None:
    assert sweep_model.averaged_over(ONE, ("train.lr", "adapter.rank")) == []
    assert sweep_model.averaged_over(ROWS, ("train.lr", "adapter.rank")) == ["strategy.name"]
    cells = sweep_model.grid(ROWS, "train.lr", "adapter.rank", "accuracy")
    keys = ("train.lr", "adapter.rank")
    caption = text.grid(cells, keys, "accuracy", ["strategy.name"], low_is_good=False)
    assert caption.startswith("Best accuracy: 0.820 at learning rate 0.004 and rank 4, n = 6.")


def test_the_best_cell_is_framed() -> None:
    cells = sweep_model.grid(ONE, "train.lr", "adapter.rank", "accuracy")
    for low_is_good, place in ((False, (1.52, 0.52)), (True, (-0.48, -0.48))):
        figure = scatter_figures.grid(cells, ("lr", "rank", "accuracy"), theme.DARK, low_is_good=low_is_good)
        assert (layout_of(figure).shapes[0].x0, layout_of(figure).shapes[0].y0) == pytest.approx(place)


def test_a_line_holds_what_differs_in_the_axis_and_the_seed_alone() -> None:
    lines = sweep_model.curves(ROWS, "train.lr", "accuracy")
    assert lines["group"].nunique() == 4
    first = lines[lines["group"] == "dynamic, rank 2"]
    assert first["x"].tolist() == [1e-3, 2e-3, 4e-3]
    assert first[["low", "high", "n"]].iloc[0].tolist() == pytest.approx([0.75, 0.77, 3])
    assert first["mean"].tolist() == pytest.approx([0.76, 0.78, 0.82])


def test_a_line_a_method_is_its_best_at_each_value() -> None:
    lines = sweep_model.best_of_each(sweep_model.curves(ROWS, "params.budget", "accuracy"), low_is_good=False)
    assert lines[["group", "x", "n"]].to_numpy().tolist() == [
        ["dynamic", 2000, 3],
        ["dynamic", 4000, 3],
        ["lora", 2000, 3],
        ["lora", 4000, 3],
    ]
    assert lines["mean"].tolist() == pytest.approx([0.82, 0.83, 0.80, 0.81])
    assert "optimistic" in text.along(lines, 2, 2, "params.budget", low_is_good=False, is_chosen=True)


def test_rank_and_budget_are_axes_too() -> None:
    assert sweep_model.ways(ROWS) == ["train.lr", "adapter.rank", "params.budget"]
    assert sweep_model.ways(ROWS[:3]) == []
    by_budget = sweep_model.curves(ROWS, "params.budget", "accuracy")
    assert by_budget["x"].unique().tolist() == [2000, 4000]
    assert by_budget["group"].nunique() == 6
    assert sweep_model.curves(ROWS, "adapter.rank", "loss")["mean"].max() < 0.3


def test_only_finished_runs_with_the_metric_count() -> None:
    rows = [
        listed(1),
        listed(2, status="running"),
        listed(3, accuracy=None),
        listed(4) | {"metrics": {"accuracy": "x"}},
    ]
    assert [row["id"][-1] for row in sweep_model.ended(rows, "accuracy")] == ["1"]
    assert sweep_model.metrics_of(rows) == ["accuracy", "loss"]


def test_the_curve_has_a_band_and_says_when_the_best_lies_at_an_edge() -> None:
    lines = sweep_model.curves(ONE, "train.lr", "accuracy")
    figure = scatter_figures.along(lines, ("learning rate", "accuracy"), theme.LIGHT, logarithmic=True)
    assert [trace.name for trace in traces_of(figure)] == [
        "dynamic, rank 2, band",
        "dynamic, rank 2",
        "dynamic, rank 4, band",
        "dynamic, rank 4",
    ]
    assert list(layout_of(figure).xaxis.tickvals) == [1e-3, 2e-3, 4e-3]
    caption = text.along(lines, 2, 2, "train.lr", low_is_good=False)
    assert caption.startswith("Best: dynamic, rank 4 at learning rate 0.004, 0.830 over 3 runs, at the edge")
    assert "The band covers the lowest to the highest seed." in caption


def test_many_lines_are_cut_to_those_with_the_most_points() -> None:
    rows = [listed(i, rank=i % 70, lr=1e-3 * (1 + i // 70), accuracy=0.5) for i in range(75)]
    lines = sweep_model.curves(rows, "train.lr", "accuracy")
    drawn, of = sweep_model.most_lines(lines)
    assert (drawn["group"].nunique(), of) == (sweep_model.MOST_LINES, 70)
    assert set(drawn.groupby("group").size().nlargest(5)) == {2}
    assert "40 of 70 lines shown" in text.along(lines, 40, 70, "train.lr", low_is_good=False)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_value_in_a_figure_is_text(text: str) -> None:
    rows = [listed(i, strategy=text, lr=1e-3 * (i + 1), init=f"{i}{text}") for i in range(3)]
    cells = sweep_model.grid(rows, "strategy.init", "train.lr", "accuracy")
    lines = sweep_model.curves(rows, "train.lr", "accuracy")
    for figure in (
        scatter_figures.grid(cells, (text, text, text), theme.LIGHT, low_is_good=False),
        scatter_figures.along(lines, (text, text), theme.LIGHT, logarithmic=False),
    ):
        drawn = str(figure.to_json()).replace("\\u003c", "<")
        assert "<img" not in drawn
        assert "$x" not in drawn
        assert "%{customdata[0]} " not in drawn
