"""A click on a point of a chart: what it writes to the address, and what it leaves alone."""

from __future__ import annotations

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
    assert not app.exception
    assert app.query_params.get("module", "") in (after, [after])
