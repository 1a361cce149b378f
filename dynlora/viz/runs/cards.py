"""Cards of the list of runs: groups side by side, names that do not fit, and the queue."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from dynlora.analysis.frames import records
from dynlora.store.schema import command_text
from dynlora.text import markdown_text, plural, score
from dynlora.viz.runs import figures as runs_figures
from dynlora.viz.runs import table as runs_table
from dynlora.viz.ui.cards import card, chart, colours, note, rows
from dynlora.viz.ui.run_actions import move_buttons, waiting_runs
from dynlora.viz.ui.run_picker import runs_dir


def group_card(runs: pd.DataFrame, by: str) -> None:
    """Draw how the finished runs of each group did; nothing when runs are not grouped.

    Args:
        runs: the runs that are shown.
        by: a key of `runlist.GROUPS`.
    """
    if by == "none":
        return
    members = runs_table.grouped(runs, by)
    summary = runs_table.group_summary(members)
    words = runs_table.groups_caption(summary, len(runs) - members["id"].nunique())
    with card(f"Results {runs_table.GROUPS[by].lower()}", "groups"):
        if summary.empty:
            note(words)
            return
        metrics = summary["metric"].unique()
        figure = runs_figures.group_strip(members, summary, metrics[0], colours())
        chart(figure, words, summary, "groups")
        if len(metrics) > 1:
            rows(summary)


MOST_NAMES = 100
"""Most runs that are listed."""


def names_below(table: pd.DataFrame) -> None:
    """Draw the whole names as links, each with its dot, status and result; wide windows, whose table has them, do not.

    Args:
        table: as `table.runs_table` returns it, in the order shown.
    """
    with st.container(key="names"):
        st.html(f'<div class="dl-names">{"".join(map(line, records(table.head(MOST_NAMES))))}</div>')


def line(row: Mapping[str, Any]) -> str:
    """Return a run as a paragraph: markup, in which all text of the run is escaped."""
    result = "" if pd.isna(row["result"]) else f" · {row['metric']} {score(row['result'])}"
    about = f"{row['strategy'] or 'no strategy'} · {row['status']}{result}"
    return (
        f'<p><i style="background: {row["colour"]}"></i><a href="run?run={quote(row["id"], safe="")}" target="_self">'
        f"{escape(row['name'] or row['id'])}</a><small>{escape(about)}</small></p>"
    )


MOST_LISTED = 12
"""Most waiting runs that are listed; the list of runs has all."""


def queue_card(runs: pd.DataFrame) -> None:
    """Draw the queue; nothing while fewer than two runs wait.

    Args:
        runs: all runs, as `run_picker.list_all` returns them.
    """
    if (runs["status"] == "queued").sum() < 2:
        return
    names = dict(zip(runs["id"], runs["name"], strict=True))
    line = [run_id for run_id in waiting_runs() if run_id in names]
    if len(line) < 2:
        return
    with card(f"Queue: {plural(len(line), 'run')} waiting", "queue"):
        for place, run_id in enumerate(line[:MOST_LISTED], 1):
            with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"queue-line-{place}"):
                st.markdown(f"{place}. {markdown_text(names[run_id], 80)}", width="stretch")
                move_buttons(run_id, f"queue-{place}", line)
        if len(line) > MOST_LISTED:
            listing = command_text("queue", runs_dir=runs_dir())
            note(f"The next {MOST_LISTED} are listed. `{listing}` lists all, and moves any of them.")
