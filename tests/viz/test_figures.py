"""Figures are pure: frames in, traces out, with units on the axes and colours from the theme."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from dynlora.analysis import capacity_frames, frames
from dynlora.kinds.train.panels import capacity
from dynlora.kinds.train.panels.inputs import group_lines
from dynlora.viz.inputs import figures as inputs_figures
from dynlora.viz.kit import module_map, theme
from tests.viz.drawn import layout_of, traces_of

MODES = [theme.LIGHT, theme.DARK]


def modules() -> pd.DataFrame:
    rows = [(f"layer.{layer}.{kind}", layer, kind, 8, 8, 8) for layer in range(2) for kind in ("query", "key")]
    return frames.described(pd.DataFrame(rows, columns=["name", "layer", "kind", "d_in", "d_out", "max_rank"]))


def state() -> pd.DataFrame:
    return capacity_frames.module_state(modules(), np.array([4.0, 4, 3, 5]), np.array([1e-6, 2e-6, 0, 4e-6]))


def drawn_map(colours: theme.Palette, **more: Any) -> go.Figure:
    steps = pd.DataFrame(np.arange(12).reshape(4, 3), columns=[0, 1, 2])
    line = frames.budget_line(steps, modules(), 0, 1000)
    view = module_map.MapView("rank", "components", **more)
    rows = capacity_frames.ordered(modules(), "kind", np.full(4, 4.0))
    return capacity.capacity_map(steps, np.array([0, 1, 2]), rows, line, view, colours)


def test_each_row_of_a_map_has_the_values_of_its_module_and_kinds_are_apart() -> None:
    figure = drawn_map(theme.LIGHT)
    heat = traces_of(figure)[0]
    assert np.isnan(np.asarray(heat.z, dtype=float)[2]).all()
    assert list(np.asarray(heat.z, dtype=float)[1]) == [6, 7, 8]  # query of layer 1 was recorded third


def test_a_group_has_one_colour_in_every_chart() -> None:
    probe = pd.DataFrame({"text": "t", "group": ["b", "a"], "x": 0.0, "y": 0.0, "loss": 0.1})
    lines = pd.DataFrame({"step": [1, 1], "group": ["a", "b"], "value": [0.5, 0.6]})
    points = traces_of(inputs_figures.probe_scatter(probe, "group", theme.LIGHT, ["a", "b"]))
    drawn = traces_of(group_lines(lines, "loss, nats", theme.LIGHT))
    by_group = {trace.name: trace.line.color for trace in drawn}
    assert {trace.name: trace.marker.color for trace in points} == by_group


@pytest.mark.parametrize("colours", MODES, ids=["light", "dark"])
def test_a_map_outlines_the_rows_that_need_rank_and_says_so_in_its_legend(colours: theme.Palette) -> None:
    needed = ("layer.0.key", "layer.1.query")
    drawn, plain = drawn_map(colours, needed=needed, step=1), drawn_map(colours, needed=("elsewhere",), step=1)
    outlines = [shape for shape in layout_of(drawn).shapes if shape.type == "rect"]
    assert [shape.line.color for shape in outlines] == [colours.needed] * 2
    rows = dict(zip(layout_of(drawn).yaxis.tickvals, layout_of(drawn).yaxis.ticktext, strict=True))
    assert [rows[(shape.y0 + shape.y1) / 2].split("<br>")[1] for shape in outlines] == ["layer.1.query", "layer.0.key"]
    assert all(shape.y1 - shape.y0 == 1 for shape in outlines), "the colours inside stay as they are"
    assert [trace.name for trace in traces_of(drawn) if trace.showlegend is not False] == [module_map.NEEDED]
    assert [shape for shape in layout_of(plain).shapes if shape.type == "rect"] == []


def test_colours_of_ranks_compare_between_runs_and_a_score_has_another_hue() -> None:
    end = capacity_frames.scale_end("rank", 4, 36)
    scale = module_map.colour_of(pd.DataFrame([[2.0, 18.0]]), module_map.MapView("rank", end=end), theme.LIGHT)
    assert (traces_of(drawn_map(theme.LIGHT, end=end))[0].zmax, scale["zmax"]) == (8, 8)
    score = module_map.colour_of(pd.DataFrame([[2.0]]), module_map.MapView("importance", is_score=True), theme.LIGHT)
    assert score["colorscale"] == theme.LIGHT.score_scale != scale["colorscale"]


KINDS = ["value", "attn out", "query", "own kind"]


def test_a_kind_looks_the_same_whoever_is_beside_it() -> None:
    whole = theme.kind_styles(KINDS)
    for kind in KINDS[:3]:
        assert theme.kind_styles([kind, "ff in"])[kind] == whole[kind]
    assert len({style[:2] for style in whole.values()}) == len(KINDS)


def test_importance_is_a_share_of_its_step_so_that_early_steps_are_seen() -> None:
    shares = capacity_frames.step_shares(pd.DataFrame({0: [1e-9, 3e-9], 10: [5.0, 15.0], 20: [0.0, 0.0]}))
    assert shares[0].tolist() == pytest.approx([25, 75])
    assert shares[10].tolist() == pytest.approx([25, 75])
    assert shares[20].isna().all()
