"""Maps of hundreds of modules: rows without gaps between them, groups apart, labels that do not overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dynlora.viz.capacity.map_figure import capacity_map
from dynlora.viz.capacity.model import ordered
from dynlora.viz.inputs.figures import gate_map
from dynlora.viz.kit.module_map import MapView, row_edges
from dynlora.viz.kit.modules import described
from dynlora.viz.kit.theme import LIGHT
from dynlora.viz.knockout.figures import group_effects
from tests.viz.drawn import layout_of, traces_of

KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
         "mlp.up_proj", "mlp.down_proj")  # fmt: skip


def map_of(layers: int, share: float = 1.0) -> tuple[Any, Any, pd.DataFrame]:
    rows = [
        {"position": layer * len(KINDS) + place, "name": f"model.layers.{layer}.{kind}", "layer": layer, "kind": kind,
         "d_in": 8, "d_out": 8, "max_rank": 8}
        for layer in range(layers)
        for place, kind in enumerate(KINDS)
    ]  # fmt: skip
    modules = ordered(described(pd.DataFrame(rows)), "kind", np.full(len(rows), 8.0))
    values = pd.DataFrame(np.ones((len(rows), 3)), columns=[0, 1, 2])
    budget = pd.DataFrame({"step": [0, 2], "share": [share, 1.0], "parameters": [10, 10]})
    drawn = capacity_map(values, np.array([0, 1, 2]), modules, budget, MapView("Rank"), LIGHT)
    return traces_of(drawn), layout_of(drawn), modules


@pytest.mark.parametrize("layers", [3, 30, 64])
def test_labels_of_neighbouring_groups_do_not_overlap(layers: int) -> None:
    _, layout, modules = map_of(layers)
    edges, _ = row_edges(modules["group"])
    pixels = 0.84 * (layout.height - 52) / edges[-1]
    spans = []
    for words in layout.annotations:
        if words.font.size == 9:
            middle = words.y * pixels
            reach = {"top": (0, 10), "bottom": (-10, 0)}.get(words.yanchor, (-5, 5))
            spans.append((middle + reach[0], middle + reach[1]))
    spans.sort()
    assert len(spans) == 2 * len(KINDS)
    assert all(one[1] <= other[0] + 1 for one, other in zip(spans, spans[1:], strict=False))


def test_rows_of_a_few_pixels_have_no_gaps_and_groups_still_have() -> None:
    few, many = map_of(3)[0][0], map_of(64)[0][0]
    assert (few.ygap, many.ygap) == (0.6, 0)
    edges, _ = row_edges(map_of(64)[2]["group"])
    assert np.diff(edges).max() * map_of(64)[1].height / edges[-1] > 3, "pixels between groups"


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
    for figure in (gate_map(values, modules, None, LIGHT), group_effects(values, LIGHT)):
        (drawn,) = traces_of(figure)
        assert drawn.xgap == gap
        assert len(drawn.x) == len(modules)
