"""What surrounds a page: its look, the menu, and the guard that turns errors into one sentence."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

import streamlit as st
from streamlit.navigation.page import StreamlitPage
from streamlit.runtime.pages_manager import PagesManager

from dynlora.analysis.run_summary import ACTIVE, STATUS_WORDS
from dynlora.errors import DynloraError
from dynlora.jobs.environment import TOKEN_VARIABLE
from dynlora.server.docs_site import docs_url
from dynlora.server.entry_page import WITH_CHARTS
from dynlora.server.host_check import is_own_page
from dynlora.server.serve import is_token
from dynlora.store import queries, schema
from dynlora.store.lifecycle import active_ids
from dynlora.text import markdown_text, one_line
from dynlora.viz.kit import page_style, theme
from dynlora.viz.ui import browser
from dynlora.viz.ui.cards import brushed_in_browser, close_tables, picked_in_browser, unseen_chart
from dynlora.viz.ui.live import following, reused, show_toasts
from dynlora.viz.ui.run_picker import (
    UNLOCKED,
    VIEWS,
    count_active,
    is_read_only,
    mirror_of,
    run_in_menu,
    runs_dir,
    serves_others,
)


def say_read_only() -> None:
    """Say where a form is otherwise that nothing can be started here, and what to do."""
    if mirror := mirror_of():
        st.info(f"This dashboard is a read-only copy of {markdown_text(mirror)}. Launch where the runs are trained.")
        return
    st.info(
        "This dashboard serves other machines and is read-only. Launch on its own machine, or unlock it with its token."
    )


def unlock() -> None:
    """Say in the menu that the dashboard only looks, and ask for the token where there is one; nothing otherwise."""
    if mirror := mirror_of():
        st.caption(f"Read-only copy of {markdown_text(mirror)}. New states of runs appear by themselves.")
        return
    if not serves_others():
        return
    if not is_read_only():
        st.caption("Unlocked for this session. Runs can be started and deleted.")
        return
    st.caption("Read-only, because it serves other machines.")
    if not os.environ.get(TOKEN_VARIABLE):
        return
    with st.form("unlock", clear_on_submit=True, border=False):
        entered = st.text_input("Token", type="password", max_chars=512, autocomplete="off")
        if st.form_submit_button("Unlock", width="stretch"):
            st.session_state[UNLOCKED] = is_token(entered)
            if is_read_only():
                st.error("Wrong token. Enter the token of the token file of dynlora ui.")
            else:
                st.rerun()


WATCHED, ENDED = "watched-runs", "ended-runs"


def ended_runs() -> list[dict[str, str]]:
    """Return the own runs that were seen queued or running in this session and have ended: id, name and status."""
    watched: set[str] = st.session_state.setdefault(WATCHED, set())
    ended: dict[str, dict[str, str]] = st.session_state.setdefault(ENDED, {})
    for run_id in sorted(watched | set(active_ids(runs_dir()))):
        with suppress(DynloraError, OSError):
            summary = queries.run_summary(schema.run_folder(runs_dir(), run_id))
            if summary.status in ACTIVE:
                watched.add(run_id)
                ended.pop(run_id, None)
            elif run_id in watched:
                status = STATUS_WORDS.get(summary.status, summary.status)
                ended[run_id] = {"id": run_id, "name": one_line(summary.name, 80), "status": status}
                watched.discard(run_id)
    return list(ended.values())


PAGES = {
    "h": "home",
    "r": "runs",
    "l": "launch",
    "u": "run",
    "c": "capacity",
    "i": "inputs",
    "m": "compare",
    "p": "playground",
    "s": "shrink",
    "e": "decode",
    "y": "recycle",
    "t": "tour",
    "d": "methods",
}
PAGE_KEYS = {letter: "" if page == "home" else page for letter, page in PAGES.items()}
"""End of the address of the page that G and a letter open, by the letter."""

KEYS = (
    *(("Anywhere", f"G {letter.upper()}", f"go to {page.capitalize()}") for letter, page in PAGES.items()),
    ("Anywhere", "/", "search runs"),
    ("Anywhere", "?", "this list"),
    ("Anywhere", "Space", "play or pause"),
    ("Player", "← →", "previous, next step"),
    ("Player", "Home End", "first, last step"),
    ("Player", "Space", "play or pause, on its button"),
    ("Present", "← →", "previous, next screen"),
    ("Present", "Esc", "end it"),
    ("Table", "← → ↑ ↓", "another cell"),
    ("Table", "Shift Space", "tick the row"),
    ("Table", "Ctrl F", "search, on a Mac with ⌘"),
)
"""Where a key works, the key, and what it does. The Tab key leads to players and tables."""


def shortcuts() -> None:
    """Draw the list of keys behind a question mark."""
    with st.popover("Keyboard", icon=":material/help:", type="tertiary", key="keyboard"):
        st.markdown("##### Keyboard shortcuts")
        for where in dict.fromkeys(where for where, _, _ in KEYS):
            st.caption(where)
            rows = [(keys, words) for place, keys, words in KEYS if place == where]
            st.markdown("\n".join(f"- {' '.join(f'`{key}`' for key in keys.split())} {words}" for keys, words in rows))


EXPLAINED_BY = {
    "capacity": "methods/dynamic",
    "compare": "guides/compare",
    "inputs": "research/gates",
    "launch": "guides/own-data",
    "methods": "METHODS",
    "playground": "guides/own-data",
    "run": "guides/notebooks",
    "shrink": "guides/shrink",
}
"""The page of the documentation that the menu leads to, by the page it is opened on; the start for all others."""

COUNTED_EVERY_S = 5
"""Seconds between two counts of the runs that train or wait, while there are any."""

ABOUT = (
    "**dynlora** trains LoRA adapters, moves rank to the modules that need it, and shows every step. Data, models and "
    "runs stay on this machine."
)
"""What streamlit's menu says of the dashboard; with it the menu is shown, and offers the light and the dark mode."""


def enter() -> None:
    """Make sure that the page runs inside `app.py`; every page calls it first.

    `dynlora ui` serves nothing else (`server/asgi.py` says why it must be told). Under `streamlit run app.py` the first
    link to a page runs the page alone, without the menu and the look: it is run again.
    """
    if PagesManager.uses_pages_directory:
        PagesManager.uses_pages_directory = False
        st.rerun()


def prepare(current: StreamlitPage) -> None:
    """Draw what every page shares; called once per run of the script. A page of another origin gets nothing."""
    host, origin = st.context.headers.get("Host"), st.context.headers.get("Origin")
    if host is not None and not is_own_page(host, origin):
        st.stop()
    colours = theme.palette(st.context.theme.type)
    st.html(page_style.style_sheet(colours))
    with st.container(key="page-tools"):
        if host is not None and current.url_path in WITH_CHARTS:
            unseen_chart()
        look = {"line": colours.second, "panel": colours.panel, "text": colours.text}
        browser.chart_tools(look, picked_in_browser, brushed_in_browser)
        browser.page_keys(PAGE_KEYS)
    close_tables(current.url_path)
    show_toasts()


def tab_title(words: str) -> None:
    """Title the browser's tab with words, plain text: one in the background says the state of its run."""
    st.set_page_config(page_title=f"{one_line(words, 80)} · dynlora")


def menu(pages: Mapping[str, Sequence[StreamlitPage]], current: StreamlitPage) -> None:
    """Draw the links to the pages by group; the pages of a run are one entry, which has the run's name."""
    active = count_active()
    with st.sidebar:
        st.markdown("##### dynlora")
        for group, members in pages.items():
            with st.container(gap="xxsmall", key=f"menu-{group.lower() or 'start'}"):
                if group:
                    st.caption(group)
                if members[0].url_path in VIEWS:
                    _run_entry(members, current)
                    continue
                for page in members:
                    if page.url_path == "runs":
                        _link_to_runs(page, active)
                    else:
                        st.page_link(page, width="stretch")
        with st.container(gap="xxsmall", key="menu-help"):
            documentation("Documentation", EXPLAINED_BY.get(current.url_path, "index"))
            shortcuts()
            _notices(active)
        unlock()


def _run_entry(members: Sequence[StreamlitPage], current: StreamlitPage) -> None:
    """Draw the link to the run that is being looked at; its other views are links for the keyboard alone.

    Args:
        members: the views of a run, the first of them its result.
        current: the page; any of the views marks the entry.
    """
    run_id, name = run_in_menu(current.url_path)
    query = {"run": run_id} if run_id else None
    with st.container(key="menu-run-here" if current.url_path in VIEWS else "menu-run-away"):
        st.page_link(members[0], label=markdown_text(name, 60), query_params=query, width="stretch")
    with st.container(key="menu-views"):
        for page in members[1:]:
            st.page_link(page, query_params=query)


def _link_to_runs(page: StreamlitPage, first: int) -> None:
    """Draw the link to the list of runs; its count, at first `first`, follows while there is something to count."""
    counted = reused(first, count_active)

    @following(COUNTED_EVERY_S, active=first > 0)
    def link() -> None:
        count = counted()
        st.page_link(page, label=f"Runs :blue-badge[{count}]" if count else "Runs", width="stretch")

    link()


def _notices(active: int) -> None:
    """Tell of the runs that end while this tab is open; looked at while there are `active` ones that can."""

    @following(COUNTED_EVERY_S, active=active > 0)
    def notices() -> None:
        browser.end_notice(ended_runs())

    notices()


def documentation(label: str, page: str = "index", section: str = "") -> None:
    """Draw a link to a page of the documentation, which the same server has; it opens beside the dashboard."""
    address = docs_url(page, section)
    st.link_button(label, address, icon=":material/open_in_new:", type="tertiary", key=f"docs-{page}-{section}")
