"""The controls over the list of runs: what is shown, in which order and groups; their values live in the address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.viz.runs import table as runlist
from dynlora.viz.kit.text import one_line
from dynlora.viz.ui.url_state import choose, put
from dynlora.viz.runs.search_box import search_box


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
        chosen = several("status", "status", statuses, runlist.STATUS_WORDS)
        methods = several("strategy", "strategy", strategies, {})
        sort = choose("sort", "order", list(runlist.SORTS), "newest", runlist.SORTS.__getitem__, width=170)
        group = choose("group", "group", list(runlist.GROUPS), "none", runlist.GROUPS.__getitem__, width=160)
    return ListView(query, chosen, methods, sort, group)


def several(
    name: str,
    label: str,
    options: Sequence[str],
    words: Mapping[str, str],
    width: Any = 160,
    none: str = "all",
) -> tuple[str, ...]:
    """Draw a choice of several options and return those chosen; `none` says what it means to choose none."""
    key = f"address-{name}"
    wanted = set(st.query_params.get_all(name))
    put(key, [option for option in options if option in wanted])
    chosen = st.multiselect(
        label, options, key=key, placeholder=none, width=width, on_change=_several_changed, args=(name, key),
        format_func=lambda option: one_line(words.get(option, option), 40),
    )  # fmt: skip
    return tuple(chosen)


def _several_changed(name: str, key: str) -> None:
    if st.session_state[key]:
        st.query_params[name] = list(st.session_state[key])
    else:
        st.query_params.pop(name, None)
