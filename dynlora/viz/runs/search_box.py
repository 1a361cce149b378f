"""The search box, what is wrong with what is in it, and the saved views; the search lives in the address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dynlora.analysis import run_summary as kit_status
from dynlora.analysis.frames import records
from dynlora.errors import DynloraError, SearchError
from dynlora.store.saved_views import MAX_NAME_LENGTH, MAX_QUERY_LENGTH, View, delete_view, read_views, save_view
from dynlora.store.search import unset_names
from dynlora.text import listed, markdown_text, one_line
from dynlora.viz.runs import table as runs_table
from dynlora.viz.ui.cards import note
from dynlora.viz.ui.run_picker import is_read_only, link, runs_dir
from dynlora.viz.ui.url_state import choose, put, several, to_address

KEY = "address-q"
EXAMPLE = "strategy=dynamic and accuracy>0.85"
HELP = (
    "Words in the name, tags or note of a run, and comparisons of its settings and results: `train.lr>=1e-3`, "
    "`params.active<50000`, `data~sst`, `tag:paper`. Combine them with `and`, `or`, `not` and brackets."
)


def addressed_search() -> str:
    """Return the search that is in the address; empty when there is none."""
    return one_line(st.query_params.get("q", ""), MAX_QUERY_LENGTH)


def search_box(label: str = "Search") -> str:
    """Draw the box and return what is in it."""
    put(KEY, addressed_search())
    return st.text_input(
        label,
        key=KEY,
        placeholder=EXAMPLE,
        max_chars=MAX_QUERY_LENGTH,
        width=330,
        icon=":material/search:",
        help=HELP,
        on_change=lambda: to_address(q=st.session_state[KEY].strip() or None),
    ).strip()


def searched(runs: pd.DataFrame, text: str) -> pd.DataFrame | None:
    """Return the runs that a search fits; None when it cannot be read, after saying where and why.

    Args:
        runs: as `queries.list_runs` returns them.
        text: the search.
    """
    try:
        matches = runs_table.searched(runs, text)
    except SearchError as error:
        st.error(markdown_text(error, 800), icon=":material/search_off:")
        st.code(error.picture, language=None)
        return None
    unset = unset_names(text, records(runs[["config"]]))
    if unset:
        note(f"None of these runs has {listed([one_line(name, 60) for name in unset])}; check the spelling.")
    return matches


def compare_link(text: str, matches: int) -> None:
    """Draw the link that compares all runs that a search fits."""
    if text and matches > 1:
        link("pages/compare.py", f"Compare all {matches:,} matching runs", q=text)


def search_line(text: str, caption: str, *, is_sound: bool) -> None:
    """Draw the line under the search: what it found, the saved views as choices, what saves or forgets one.

    Args:
        text: the search that is shown.
        caption: what it found, in words; empty for nothing.
        is_sound: whether it can be read.
    """
    views = read_views(runs_dir())
    saved = next((view for view in views if view.query == text), None)
    can_save = bool(text) and is_sound and saved is None and not is_read_only()
    if not (caption or views or can_save):
        return
    with st.container(horizontal=True, gap="small", key="views", vertical_alignment="center"):
        if caption:
            st.caption(markdown_text(caption), width="content")
        if views:
            _choices(views, saved)
        if can_save:
            _save(text)
        if saved is not None and not is_read_only():
            _forget(saved)


def _choices(views: Sequence[View], saved: View | None) -> None:
    key = "address-view"
    queries = {view.name: view.query for view in views}
    put(key, None if saved is None else saved.name)
    st.pills(
        "Saved views",
        list(queries),
        key=key,
        format_func=lambda name: markdown_text(name, MAX_NAME_LENGTH),
        label_visibility="collapsed",
        on_change=lambda: to_address(q=queries.get(st.session_state[key] or "")),
    )


def _save(text: str) -> None:
    with st.popover("Save view", icon=":material/bookmark_add:", type="tertiary", key="save-view"):
        name = st.text_input("View name", key="view-name", max_chars=MAX_NAME_LENGTH)
        st.caption("Saved in the runs folder, for everyone who opens it.")
        if st.button("Save", key="view-save", type="primary"):
            _changed(lambda: save_view(runs_dir(), name, text))


def _forget(view: View) -> None:
    with st.popover("Delete view", icon=":material/bookmark_remove:", type="tertiary", key="forget-view"):
        st.caption("Deletes only the name and its search, not the runs.")
        if st.button("Delete", key="view-forget", type="primary"):
            _changed(lambda: delete_view(runs_dir(), view.name))


def _changed(change: Callable[[], object]) -> None:
    """Change the views and redraw the page; a refusal is shown as its sentence."""
    try:
        change()
    except (DynloraError, OSError) as error:
        st.error(markdown_text(error, 2000))
    else:
        st.rerun()


@dataclass(frozen=True)
class ListView:
    """What the address says of the list.

    Attributes:
        query: a search.
        statuses: statuses to show; empty is all.
        strategies: strategies to show; empty is all.
        sort: a key of `runlist.SORTS`.
        group: a key of `runlist.GROUPS`.
    """

    query: str
    statuses: tuple[str, ...]
    strategies: tuple[str, ...]
    sort: str
    group: str


def list_controls(runs: pd.DataFrame) -> ListView:
    """Draw the controls in a row that wraps and return what they say."""
    statuses = sorted(runs["status"].unique())
    strategies = sorted(name for name in runs["strategy"].unique() if isinstance(name, str))
    with st.container(horizontal=True, gap="small", key="filters", vertical_alignment="bottom"):
        query = search_box()
        chosen = several("status", "Status", statuses, kit_status.STATUS_WORDS)
        methods = several("strategy", "Strategy", strategies, {})
        sort = choose("sort", "Sort", list(runs_table.SORTS), "newest", runs_table.SORTS.__getitem__, width=170)
        group = choose("group", "Group", list(runs_table.GROUPS), "none", runs_table.GROUPS.__getitem__, width=160)
    return ListView(query, chosen, methods, sort, group)
