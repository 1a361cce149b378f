"""Maps of hundreds of modules: rows without gaps between them, groups apart, labels that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis.capacity_frames import folded, ordered
from dynlora.analysis.frames import described
from dynlora.kinds.train.panels.capacity import capacity_map
from dynlora.kinds.train.panels.inputs import gate_map
from dynlora.kinds.train.panels.measured import AblationByGroup
from dynlora.viz.kit.module_map import MapView, even_cells, row_edges
from dynlora.viz.kit.theme import LIGHT
from tests.viz.drawn import layout_of, traces_of

KINDS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def map_of(layers: int, share: float = 1.0) -> tuple[Any, Any, pd.DataFrame]:
    rows = [
        {
            "position": layer * len(KINDS) + place,
            "name": f"model.layers.{layer}.{kind}",
            "layer": layer,
            "kind": kind,
            "d_in": 8,
            "d_out": 8,
            "max_rank": 8,
        }
        for layer in range(layers)
        for place, kind in enumerate(KINDS)
    ]
    modules = ordered(described(pd.DataFrame(rows)), "kind", np.full(len(rows), 8.0))
    values = pd.DataFrame(np.ones((len(rows), 3)), columns=[0, 1, 2])
    budget = pd.DataFrame({"step": [0, 2], "share": [share, 1.0], "parameters": [10, 10]})
    drawn = capacity_map(values, np.array([0, 1, 2]), modules, budget, MapView("Rank"), LIGHT)
    return traces_of(drawn), layout_of(drawn), modules


@pytest.mark.parametrize(("share", "words"), [(1.0, ["100 %"]), (0.99945, ["100 %"]), (0.9, ["90.0 %", "100 %"])])
def test_no_two_ticks_of_the_budget_say_the_same(share: float, words: list[str]) -> None:
    _, layout, _ = map_of(3, share)
    assert list(layout.yaxis2.ticktext) == words
    assert len(layout.yaxis2.tickvals) == len(words)


@pytest.mark.parametrize(("layers", "gap"), [(3, 1), (30, 0)])
def test_columns_narrower_than_their_gaps_have_none(layers: int, gap: int) -> None:
    """210 gates on a screen of 375 pixels were all gap: the map was white."""
    modules = map_of(layers)[2]
    values = pd.DataFrame(np.ones((2, len(modules))), index=["add", "subtract"], columns=list(modules["name"]))
    for figure in (gate_map(values, modules, None, LIGHT), AblationByGroup().figure(values, LIGHT)):
        (drawn,) = traces_of(figure)
        assert drawn.xgap == gap
        assert len(drawn.x) == len(modules)


def test_cells_of_large_maps_have_one_size_so_that_browsers_draw_them_as_an_image() -> None:
    drawn, _, modules = map_of(64)
    heat = drawn[0]
    assert set(np.diff(np.asarray(heat.y)).round(9)) == {1.0}
    assert float(np.ptp(np.diff(np.asarray(heat.x, dtype=float)))) < 1e-9
    rows = np.isfinite(np.asarray(heat.z, dtype=float)).all(axis=1)
    assert rows.sum() == len(modules), "every row once, all else gaps"
    _, centres = row_edges(modules["group"])
    assert [int(centre) for centre in centres] == np.flatnonzero(rows).tolist(), "each beside its name"


def test_columns_get_one_width_only_where_the_middle_of_each_stays_in_its_bin() -> None:
    z, y = np.arange(6.0).reshape(2, 3), np.array([0.0, 1.0, 2.0])
    near = np.array([-0.5, 31.5, 47.5, 79.5])
    cells, x, _ = even_cells(z, near, y)
    middles = (x[1:] + x[:-1]) / 2
    assert cells.tolist() == z.tolist()
    assert float(np.ptp(np.diff(x))) < 1e-9
    assert ((near[:-1] < middles) & (middles < near[1:])).all()
    for odd in (np.array([0.0, 1.0, 2.0, 100.0]), np.array([0.0, 90.0, 95.0, 100.0])):
        assert even_cells(z, odd, y)[1] is odd
    gaps = np.array([0.0, 1.45, 2.45])
    assert even_cells(z, near, gaps)[2] is gaps


@pytest.mark.parametrize("opened", [(), (1,)])
def test_folded_rows_are_the_means_of_their_layers(opened: Sequence[int]) -> None:
    _, _, modules = map_of(3)
    n = len(modules)
    values = pd.DataFrame(np.arange(2.0 * n).reshape(n, 2), columns=[0, 5])
    rows, every = folded(ordered(modules, "layer", np.full(n, 8.0)), values, opened)
    layers = rows[rows["position"] >= n]
    assert layers["name"].tolist() == ["layer 0", "layer 1", "layer 2"]
    assert len(rows) == 3 + len(KINDS) * len(opened)
    for layer, position in enumerate(layers["position"]):
        members = modules.loc[modules["layer"] == layer, "position"]
        assert every.iloc[position].tolist() == values.iloc[members].mean().tolist()
    if opened:
        place = rows["name"].tolist().index("layer 1")
        below = rows.iloc[place + 1 : place + 1 + len(KINDS)]
        assert set(below["layer"]) == {1}
        assert (below["position"] < n).all()
