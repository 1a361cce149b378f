"""The controls over the list of runs: what is shown, in which order and groups; their values live in the address."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dynlora.viz.kit import status as kit_status
from dynlora.viz.runs import table as runs_table
from dynlora.viz.runs.search_box import search_box
from dynlora.viz.ui.multiselect import several
from dynlora.viz.ui.url_state import choose


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
