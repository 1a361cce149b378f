"""What groups explain of gates, as figures, captions and tables."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis import frames, inputs
from dynlora.analysis.module_effects import GateEffect, gate_effect, served
from dynlora.kinds.train.panels.inputs import gate_map
from dynlora.kinds.train.panels.inputs import gates as gate_caption
from dynlora.viz.inputs import figures
from dynlora.viz.kit import theme
from tests.analysis.test_gate_effect import GROUPS, drawn
from tests.viz.drawn import traces_of


def modules(n: int = 6) -> pd.DataFrame:
    rows = [(f"layer.{i}.query", i, "query", 8, 8, 8) for i in range(n)]
    return frames.described(pd.DataFrame(rows, columns=["name", "layer", "kind", "d_in", "d_out", "max_rank"]))


def reading(gates: pd.DataFrame, effect: GateEffect | None, named: list[str] | None = None) -> Any:
    """Return what the caption reads of a run at step 40; all groups are named by default."""
    named_gates = gates if named is None else gates.loc[named]
    return SimpleNamespace(gates=gates, named_gates=named_gates, modules=modules(), effect=effect, step=40)


def test_the_map_hides_what_may_be_chance() -> None:
    effect = gate_effect(*drawn(shift=0.02))
    assert effect is not None
    gates = pd.DataFrame(np.ones((4, 6)), index=GROUPS)
    hidden = gate_map(gates, modules(), effect, theme.LIGHT)
    everything = gate_map(gates, modules(), effect, theme.LIGHT, hide=False)
    assert np.isfinite(np.asarray(traces_of(hidden)[0].z, float)).any(axis=0).tolist() == effect.is_significant.tolist()
    assert np.isfinite(np.asarray(traces_of(everything)[0].z, float)).all()
    assert np.asarray(traces_of(hidden)[1].y).tolist() == pytest.approx((100 * effect.share).tolist())


def test_words_and_table_name_only_what_is_beyond_chance() -> None:
    gates = pd.DataFrame(np.ones((4, 6)), index=GROUPS)
    gates.iloc[3, 2] = 1.02
    effect = gate_effect(*drawn(shift=0.02))
    assert effect is not None
    words = gate_caption(reading(gates, effect))
    assert words.startswith("At step 40, 1 of 6 gates differ between groups beyond chance.")
    table = served(gates, modules(), effect, pd.DataFrame({"group": GROUPS, "loss": 0.5, "metric": 0.9}), "exact_match")
    assert "held-out exact match" in table
    assert table["larger gates"].tolist() == ["none significant"] * 3 + ["query 2 +0.015"]
    nothing = gate_effect(*drawn())
    assert "no gate differs between groups beyond chance" in gate_caption(reading(gates, nothing))


def test_a_small_group_is_in_no_sentence_about_gates() -> None:
    gates = pd.DataFrame(1.0, index=["a", "b", "few"], columns=range(6))
    gates.iloc[:, 2] = [1.0, 1.02, 1.5]
    effect = gate_effect(*drawn(shift=0.02))
    words = gate_caption(reading(gates, effect, named=["a", "b"]))
    assert "(b 1.020, a 1.000; 1 is neutral)" in words
    assert "few" not in words
    assert "(1 is neutral)" in gate_caption(reading(gates, effect, named=["few"]))


def test_gates_over_depth_of_chosen_examples() -> None:
    gates, _ = drawn(n=8)
    depth = inputs.over_depth(pd.DataFrame(gates), modules(), [1, 5, 99])
    assert depth["example"].unique().tolist() == ["example 1", "example 5"]
    assert depth["layer"].tolist() == [*range(6)] * 2
    assert depth["gate"].tolist() == pytest.approx([*gates[1], *gates[5]])
    assert "2 examples; their mean gates differ most in layer" in figures.depth(depth)
    figure = figures.gates_over_depth(depth, theme.DARK)
    assert [trace.name for trace in traces_of(figure)] == ["Example 1", "Example 5"]


def test_the_module_that_is_followed_is_marked_and_a_click_on_a_bar_follows_one() -> None:
    gates = pd.DataFrame(np.ones((2, 4)), index=["a", "b"])
    effect = GateEffect(np.array([0.5, 0.5, 0.05, 0.05]), 0.1, 9, 2)
    figure = gate_map(gates, modules(4), effect, theme.LIGHT, module="layer.2.query")
    (bars,) = [trace for trace in traces_of(figure) if trace.type == "bar"]
    assert [row[-1] for row in bars.customdata] == modules(4)["position"].tolist()
    assert list(bars.marker.color) == [theme.LIGHT.accent, theme.LIGHT.accent, theme.LIGHT.second, theme.LIGHT.muted]
