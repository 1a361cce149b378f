"""A click on a point, a cell or a band of a chart: what it writes to the address, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest


def click(before: str, place: int) -> None:
    """Tell of a click on a chart that was drawn while `before` was chosen."""
    import streamlit as st

    from dynlora.viz.kit.panel import Picks
    from dynlora.viz.ui import cards

    st.session_state["chart"] = {"selection": {"points": [{"customdata": [place]}]}}
    cards._picked("chart", Picks("module", ["key", "value"]), before)


@pytest.mark.parametrize(
    ("address", "before", "place", "after"),
    [
        ("", "", 0, "key"),
        ("key", "key", 1, "value"),
        ("key", "key", 0, ""),  # a second click takes the choice back
        ("key", "", 0, "key"),  # told again of the first click, after Back to what it chose
        ("", "key", 1, ""),
    ],
)
def test_only_a_chart_that_is_shown_can_be_clicked(address: str, before: str, place: int, after: str) -> None:
    app = AppTest.from_function(click, args=(before, place))
    if address:
        app.query_params["module"] = address
    app.run()
    assert app.query_params.get("module", "") == after


def pick(name: str, value: object) -> None:
    """Tell of a click or a brush as the browser does; `map` is a chart that was drawn."""
    import streamlit as st

    from dynlora.viz.kit.panel import Picks
    from dynlora.viz.ui import browser, cards

    st.session_state["picks-map"] = Picks("module", ["key", "value"], {8: ("open", "6")})
    st.session_state[browser.CHARTS] = {name: value}
    (cards.picked_in_browser if name == "click" else cards.brushed_in_browser)()


@pytest.mark.parametrize(
    ("name", "value", "before", "after"),
    [
        ("click", {"chart": "map", "place": 1, "step": 40}, {}, {"module": "value", "step": "40"}),
        ("click", {"chart": "map", "place": 1, "step": 40}, {"module": "value", "step": "40"}, {}),
        ("click", {"chart": "map", "place": -1, "step": 40}, {}, {}),
        ("click", {"chart": "other", "place": 0, "step": 40}, {}, {}),
        ("click", {"chart": "map", "place": 0, "step": -1}, {}, {"module": "key"}),
        ("click", {"chart": "map", "place": "0"}, {}, {}),
        ("click", ["map", 0], {"module": "key"}, {"module": "key"}),
        ("click", {"chart": "map", "place": 8, "step": 40}, {"module": "key"}, {"module": "key", "open": "6"}),
        ("click", {"chart": "map", "place": 8, "step": 40}, {"open": "6", "step": "3"}, {"step": "3"}),
        ("brush", {"first": 10, "last": 20}, {}, {"steps": "10-20"}),
        ("brush", {"all": True}, {"steps": "10-20"}, {}),
        ("brush", {"first": 0.5, "last": "9&run=x"}, {}, {}),
    ],
)
def test_what_a_browser_tells_is_checked(name: str, value: Any, before: dict[str, str], after: dict[str, str]) -> None:
    app = AppTest.from_function(pick, args=(name, value))
    for key, text in before.items():
        app.query_params[key] = text
    app.run()
    address = {key: values[-1] if isinstance(values, list) else values for key, values in app.query_params.items()}
    assert address == after


def opened(columns: list[str]) -> None:
    """Draw the table that a menu opens, whose second row was clicked."""
    from unittest import mock

    import pandas as pd

    from dynlora.viz.ui import cards

    rows = pd.DataFrame({column: ["a.key", "a.value"] for column in columns})
    clicked = {"selection": {"rows": [], "cells": [(1, columns[0])]}}
    with mock.patch.object(cards.st, "dataframe", return_value=clicked), mock.patch.object(cards.st, "rerun"):
        cards._show_table(rows, len(rows), "map")


@pytest.mark.parametrize(("columns", "module"), [(["module", "name"], "a.value"), (["name", "value"], "")])
def test_a_row_of_a_table_of_modules_chooses_its_module(columns: list[str], module: str) -> None:
    app = AppTest.from_function(opened, args=(columns,)).run()
    assert app.query_params.get("module", "") == module
