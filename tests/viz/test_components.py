"""Components of a module over the steps: cut out of all, followed through copies, drawn without trusting the log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dynlora.viz import components, theme
from dynlora.viz.figures_modules import component_map

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
    found = components.copies(events(copy(0, 2), copy(2, 1), copy(1, 0)), MODULES)
    assert found["module"].tolist() == ["b"] * 3
    assert np.isnan(found["target_factor"]).all()
    tree = components.lineage(found, 3)
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
    found = components.copies(events(copy(0, 1)), MODULES)
    figure: Any = component_map(rows, found, theme.DARK)
    assert len(figure.layout.annotations) == 1
    assert figure.layout.annotations[0].ay == 0
    words = components.sentence(rows, found, "b 0")
    assert words == "b 0: 1 component at the end; after 1 copy all descend from 1 slot (0)."
    assert "no factors" in components.sentence(rows.iloc[:0], found, "b 0")
