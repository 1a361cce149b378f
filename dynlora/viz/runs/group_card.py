"""The card that sets groups of runs side by side."""

from __future__ import annotations

import pandas as pd

from dynlora.viz.runs import figures as runs_figures
from dynlora.viz.runs import table as runs_table
from dynlora.viz.ui.cards import card, chart, colours, note, rows


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
