"""What only a browser can do: a step marked in all charts, buttons of charts, keys, a note when a run ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from streamlit.components.v2 import component

_FILES = files("dynlora.viz.ui.browser")


def _element(name: str, css: str | None = None) -> Any:
    sheet = None if css is None else _FILES.joinpath(css).read_text("utf-8")
    return component(f"dynlora_{name}", js=_FILES.joinpath(f"{name}.js").read_text("utf-8"), css=sheet)


_charts, _keys, _notice = _element("charts"), _element("keys"), _element("notice", "notice.css")


def chart_tools(colours: Mapping[str, str]) -> None:
    """Give the page's charts their buttons, and mark the step under the pointer, or of a player, in all of them.

    Args:
        colours: `line`, `panel` and `text`, of the mode.
    """
    _charts(key="chart-tools", data=dict(colours))


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
