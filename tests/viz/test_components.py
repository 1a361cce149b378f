"""Components of a module over the steps: cut out of all, followed through copies, drawn without trusting the log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis import capacity_frames, frames
from dynlora.analysis.run_reading import About
from dynlora.kinds.train.panels import components
from dynlora.kinds.train.panels.components import all_components, component_map
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import MapView
from tests.summaries import summary_with
from tests.viz.drawn import layout_of

MODULES = pd.DataFrame({"position": [1, 0], "name": ["b", "a"], "short": ["b 0", "a 0"], "max_rank": [3, 2]})


def events(*edits: dict[str, Any]) -> pd.DataFrame:
    """Return an event a step, from step 10 on, each with one edit."""
    return pd.DataFrame({"step": [10 + i for i in range(len(edits))], "payload": [{"edits": [e]} for e in edits]})


def copy(source: int, target: int, donor: Any = 1) -> dict[str, Any]:
    """Return the row of a copy in the decision log."""
    return {"edit": "copy", "donor": donor, "donor_component": source, "receiver_component": target, "donor_score": 2.0}


def test_a_module_has_the_rows_of_its_own_room() -> None:
    frame = pd.DataFrame(np.arange(10.0).reshape(5, 2), columns=[0, 5])
    frame.iloc[4] = np.nan
    assert components.of_module(frame, MODULES, "a").to_numpy().tolist() == [[0, 1], [2, 3]]
    assert components.of_module(frame, MODULES, "b").to_numpy().tolist() == [[4, 5], [6, 7]], (
        "an unused slot is left out"
    )
    assert components.of_module(frame, MODULES, "c").empty
    assert components.of_module(frame.iloc[:4], MODULES, "a").empty


def test_lineage_by_hand() -> None:
    copies = components.copies(events(copy(0, 2), copy(2, 1), copy(1, 0)), MODULES)
    assert copies["module"].tolist() == ["b"] * 3
    assert np.isnan(copies["target_factor"]).all()
    tree = components.lineage(copies, 3)
    assert tree["founder"].tolist() == [0, 0, 0]
    assert tree["copies"].tolist() == [3, 2, 1]
    assert tree["born"].tolist() == [12, 11, 10]


def test_copies_at_one_event_are_all_of_what_was_before() -> None:
    swap = pd.DataFrame({"step": [10], "payload": [{"edits": [copy(0, 1), copy(1, 0)]}]})
    tree = components.lineage(components.copies(swap, MODULES), 2)
    assert tree["founder"].tolist() == [1, 0]


@pytest.mark.parametrize(
    "edit",
    [
        copy(0, 1, donor=7),
        copy(0, 1, donor="x"),
        copy(0, 1, donor=[1]),
        copy(-1, 1),
        copy(True, 1),
        {"edit": "copy"},
        {"edit": ["copy"]},
        {"edit": "move"},
    ],
)
def test_a_log_that_lies_is_left_out(edit: dict[str, Any]) -> None:
    assert components.copies(events(edit), MODULES).empty
    assert components.copies(pd.DataFrame({"step": [1], "payload": [{"edits": 3}]}), MODULES).empty


def test_the_map_shows_factors_and_an_arrow_a_copy() -> None:
    rows = pd.DataFrame([[1.0, 0.5], [1.0, np.nan]], columns=[0, 20])
    copies = components.copies(events(copy(0, 1)), MODULES)
    figure: Any = component_map(rows, copies, rows, MapView("factor"), theme.DARK)
    assert len(layout_of(figure).annotations) == 1
    assert layout_of(figure).annotations[0].ay == 0


SHARE = About("trained share")


def layers() -> pd.DataFrame:
    """Return two modules with room for three and two components, as pages describe them."""
    rows = [("l.0.value", 0, "value", 4, 4, 3), ("l.0.query", 0, "query", 4, 4, 2)]
    return frames.described(pd.DataFrame(rows, columns=["name", "layer", "kind", "d_in", "d_out", "max_rank"]))


def test_signals_over_components_are_drawn_by_what_is_recorded() -> None:
    meta = {"own_signals": {"kept": {"title": "kept rows", "question": "Which rows are kept", "unit": "share"}}}
    signals = components.known(summary_with(meta), {"trained_part": "share", "kept": "share", "factor": "factor"})
    assert list(signals) == ["factor", "trained_part", "kept"]
    assert signals["kept"] == About("kept rows", "Which rows are kept", unit="share")
    assert signals["trained_part"].word == "trained part share"
    assert components.known(summary_with({"own_signals": {"kept": {"title": 3}}}), {"kept": ""})["kept"].word == "kept"
    assert components.known(summary_with({}), {}) == {}
    assert len(components.known(summary_with({}), {f"s{i}": "" for i in range(100)})) == components.MOST_SIGNALS


@pytest.mark.parametrize(
    ("values", "is_factor", "neutral"),
    [
        ([0.46, 0.54], False, 0.5),
        ([0.46, 0.54], True, None),
        ([0.1, 0.9], False, None),
        ([-1.0, 2.0], True, 0.0),
        ([0.5, 0.5], False, None),
        ([np.nan], False, None),
    ],
)
def test_values_far_from_zero_are_told_apart_by_their_mean(
    values: list[float], is_factor: bool, neutral: float | None
) -> None:
    centre = components.centre(pd.DataFrame([values]), SHARE, is_factor=is_factor)
    assert centre == (None if neutral is None else pytest.approx(neutral))
    assert components.centre(pd.DataFrame([values]), About("a", "b", choices=("c",)), is_factor=False) is None


def test_all_components_stand_in_the_row_of_their_module() -> None:
    modules = layers()
    values = components.by_module(np.array([0.1, 0.2, np.nan, 0.4, 0.5]), modules)
    assert values.to_numpy().tolist() == [[0.1, 0.2], [0.4, 0.5]], "rows as recorded, no column that nobody uses"
    assert components.by_module(np.zeros(4), modules).empty
    assert components.by_module(np.full(5, np.nan), modules).empty
    rows = capacity_frames.ordered(modules, "kind", np.ones(2))
    look = MapView("trained share", "trained share", module="l.0.query")
    figure: Any = all_components(values, rows, values, look, theme.LIGHT)
    z = np.array(figure.data[0].z, float)
    assert [row for row in z.tolist() if not np.isnan(row).all()] == values.iloc[
        modules["position"]
    ].to_numpy().tolist()
    assert len(layout_of(figure).shapes) == 1
    table = components.table(values, rows)
    assert list(table.columns) == ["module", "component 0", "component 1", "name"]
    assert table.set_index("module").loc["query 0", "component 1"] == 0.5


def test_what_no_sample_run_has_is_said_of_components() -> None:
    modules = layers()
    mask = About("mask", "Which", choices=("frozen", "trained"))
    values = components.by_module(np.array([0, 1, 1, 0, 1.0]), modules)
    assert "3 trained and 2 frozen" in components.spread(values, modules, mask, 7)
    rows = pd.DataFrame([[0.5, 0.5], [0.4, 0.4]], columns=[0, 10])
    assert components.over_steps(rows + [0, 0.1], "b 0", SHARE).endswith("0.5 to 0.6.")
    assert "At step 10" in components.over_steps(pd.DataFrame([[0, 1.0]], columns=[0, 10]), "b 0", mask)
    assert components.over_steps(rows.iloc[:0], "b 0", SHARE).startswith("No trained share")
