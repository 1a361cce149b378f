"""What only a browser can do: a step marked in all charts, buttons of charts, keys, a note when a run ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

_FILES = files("dynlora.viz.ui.browser")


def _element(name: str, css: str | None = None) -> Any:
    sheet = None if css is None else _FILES.joinpath(css).read_text("utf-8")
    return component(f"dynlora_{name}", js=_FILES.joinpath(f"{name}.js").read_text("utf-8"), css=sheet)


_charts, _keys, _notice = _element("charts"), _element("keys"), _element("notice", "notice.css")


CHARTS = "chart-tools"
"""Key of the element that looks after the charts of a page."""


def chart_tools(colours: Mapping[str, str], on_click: Callable[[], None], on_brush: Callable[[], None]) -> None:
    """Give the page's charts their buttons, and mark the step under the pointer, or of a player, in all of them.

    A part of the steps that is drawn over in one chart is what all charts of the page show then.

    Args:
        colours: `line`, `panel` and `text`, of the mode.
        on_click: called after a click on a cell of a map or a band of a flow; `clicked` says on what.
        on_brush: called after steps were drawn over on a page that has a range of steps; `brushed` says which.
    """
    _charts(key=CHARTS, data=dict(colours), on_click_change=on_click, on_brush_change=on_brush)


def clicked() -> tuple[str, int, int | None] | None:
    """Return the chart that was clicked, the place of what was clicked among its picks, and the step.

    The step is None in a chart without steps. What a browser sends is untrusted: None for anything else.
    """
    match _sent("click"):
        case {"chart": str(chart), "place": int(place), "step": int() | None as step} if place >= 0:
            return chart, place, step if step is None or 0 <= step < MOST_STEPS else None
    return None


def brushed() -> tuple[int, int] | None:
    """Return the steps that were drawn over; None for all of them."""
    match _sent("brush"):
        case {"first": int(first), "last": int(last)} if 0 <= first < last < MOST_STEPS:
            return first, last
    return None


MOST_STEPS = 10**12
"""No run has as many steps."""


def _sent(name: str) -> Any:
    return (st.session_state.get(CHARTS) or {}).get(name)


def page_keys(places: Mapping[str, str]) -> None:
    """Make keys lead to pages, to the search and to the list of keys.

    Args:
        places: end of the page's address by the letter that follows G.
    """
    _keys(key="page-keys", data={"places": dict(places)})


def end_notice(ended: Sequence[Mapping[str, str]]) -> None:
    """Draw the switch for notifications, and tell of runs that have just ended, each once in a browser tab.

    The tab's title tells of them until the tab is looked at. A notification is shown only where the switch is on and
    the browser allows it; nothing leaves the browser.

    Args:
        ended: runs that have ended since the tab was opened: `id`, `name` and `status`.
    """
    _notice(key="end-notice", data={"ended": [dict(run) for run in ended]})
