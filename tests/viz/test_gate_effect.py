"""What groups explain of gates: found where it was put in, not found in noise, and the words and tables about it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis.gate_effect import gate_effect, served
from dynlora.viz.inputs import figures as inputs_figures
from dynlora.viz.inputs import model as inputs_model
from dynlora.viz.inputs import text as inputs_text
from dynlora.viz.kit import modules as kit_modules
from dynlora.viz.kit import theme
from tests.viz.drawn import traces_of

GROUPS = ["a", "b", "c", "d"]


def modules(n: int = 6) -> pd.DataFrame:
    rows = [(f"layer.{i}.query", i, "query", 8, 8, 8) for i in range(n)]
    return kit_modules.described(pd.DataFrame(rows, columns=["name", "layer", "kind", "d_in", "d_out", "max_rank"]))


def drawn(n: int = 256, seed: int = 0, shift: float = 0.0, width: int = 6) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    group = [GROUPS[i % 4] for i in range(n)]
    gates = 1 + 0.01 * rng.standard_normal((n, width))
    gates[np.array(group) == "d", 2] += shift
    return gates, group


def test_an_effect_that_was_put_in_is_found_and_only_that() -> None:
    effect = gate_effect(*drawn(shift=0.02))
    assert effect is not None
    assert effect is not None
    assert effect.found.tolist() == [False, False, True, False, False, False]
    assert (effect.examples, effect.groups) == (256, 4)


def test_noise_is_found_in_about_one_run_of_twenty_whatever_the_number_of_gates() -> None:
    effects = [gate_effect(*drawn(n=64, seed=seed, width=36)) for seed in range(40)]
    hits = [effect is not None and bool(effect.found.any()) for effect in effects]
    assert sum(hits) <= 6  # 2 are expected; 7 or more come by chance in one of two hundred such tests


def test_the_share_is_the_variance_between_groups() -> None:
    gates, group = np.array([[0.0], [0.0], [2.0], [4.0]]), ["a", "a", "b", "b"]
    effect = gate_effect(gates, group)
    assert effect is not None
    between = 2 * (0 - 1.5) ** 2 + 2 * (3 - 1.5) ** 2
    assert effect.share[0] == pytest.approx(between / (2 * 1.5**2 + 0.5**2 + 2.5**2))


def test_equal_gates_and_rounding_are_no_finding() -> None:
    gates = 1 + 1e-7 * np.arange(40.0)[:, None] * np.ones((1, 3))
    effect = gate_effect(gates, ["a"] * 20 + ["b"] * 20)
    assert effect is not None
    assert not effect.found.any()


@pytest.mark.parametrize("group", [["a"] * 8, [None] * 8, ["a", "b", *[None] * 6]])
def test_nothing_to_tell_apart(group: list[str | None]) -> None:
    assert gate_effect(np.ones((8, 2)), group) is None


def test_the_map_hides_what_may_be_chance() -> None:
    effect = gate_effect(*drawn(shift=0.02))
    assert effect is not None
    gates = pd.DataFrame(np.ones((4, 6)), index=GROUPS)
    hidden = inputs_figures.gate_map(gates, modules(), effect, theme.LIGHT)
    shown = inputs_figures.gate_map(gates, modules(), effect, theme.LIGHT, hide=False)
    assert np.isfinite(np.asarray(traces_of(hidden)[0].z, float)).any(axis=0).tolist() == effect.found.tolist()
    assert np.isfinite(np.asarray(traces_of(shown)[0].z, float)).all()
    assert np.asarray(traces_of(hidden)[1].y).tolist() == pytest.approx((100 * effect.share).tolist())


def test_words_and_table_name_only_what_is_beyond_chance() -> None:
    gates = pd.DataFrame(np.ones((4, 6)), index=GROUPS)
    gates.iloc[3, 2] = 1.02
    effect = gate_effect(*drawn(shift=0.02))
    assert effect is not None
    words = inputs_text.gates(gates, modules(), effect, 40)
    assert words.startswith(
        "At step 40, 1 of 6 gates differ between groups beyond chance. The groups explain the largest fraction of the "
        "variation in query 2: "
    )
    assert "(d 1.020, a 1.000; 1 is neutral)" in words
    table = served(gates, modules(), effect, pd.DataFrame({"group": GROUPS, "loss": 0.5, "metric": 0.9}), "exact_match")
    assert "held-out exact match" in table
    assert table["larger gates"].tolist() == ["none significant"] * 3 + ["query 2 +0.015"]
    assert table["smaller gates"].tolist() == ["query 2 −0.005"] * 3 + ["none significant"]
    nothing = gate_effect(*drawn())
    assert "no gate differs between groups beyond chance" in inputs_text.gates(gates, modules(), nothing, 40)


def test_gates_over_depth_of_chosen_examples() -> None:
    gates, _ = drawn(n=8)
    depth = inputs_model.over_depth(pd.DataFrame(gates), modules(), [1, 5, 99])
    assert depth["example"].unique().tolist() == ["example 1", "example 5"]
    assert depth["layer"].tolist() == [*range(6)] * 2
    assert depth["gate"].tolist() == pytest.approx([*gates[1], *gates[5]])
    assert "2 examples; their mean gates differ most in layer" in inputs_text.depth(depth)
    figure = inputs_figures.gates_over_depth(depth, theme.DARK)
    assert [trace.name for trace in traces_of(figure)] == ["Example 1", "Example 5"]


def test_selected_points_stay_and_the_others_fade() -> None:
    probe = pd.DataFrame({"text": "t", "group": ["a", "b", "a"], "x": 0.0, "y": 0.0, "loss": 0.1})
    figure = inputs_figures.probe_scatter(probe, "group", theme.LIGHT, chosen=[2])
    assert [list(trace.selectedpoints) for trace in traces_of(figure)] == [[1], []]
    assert all(trace.unselected.marker.opacity < 0.5 for trace in traces_of(figure))
