"""Figures of the Runs page: how the results of groups of runs are beside each other."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_lines, plotly_text, score, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.limits import axis_within
from dynlora.viz.kit.theme import Palette

LINE = 17
"""Pixels of a line of a group's name."""

MAX_GROUPS = 30
"""Most groups that are drawn; the table holds all."""


def group_strip(members: pd.DataFrame, summary: pd.DataFrame, metric: str, colours: Palette) -> go.Figure:
    """Draw each run of a group as a dot, the group's mean and the span of its runs beside them.

    Args:
        members: one row per run and group, as `runlist.grouped` returns them.
        summary: one row per group, as `runlist.group_summary` returns it.
        metric: name of the metric that is drawn.
        colours: the mode's colours.
    """
    shown = summary[summary["metric"] == metric].head(MAX_GROUPS)
    order = shown["group"].tolist()[::-1]
    labels = [plotly_lines(group, 22) for group in order]
    places = {group: place for place, group in enumerate(order)}
    lines = max((label.count("<br>") + 1 for label in labels), default=1)
    drawn = theme.figure(colours, 96 + max(34, 10 + LINE * lines) * len(order), left=150)
    dots = members[(members["metric"] == metric) & members["group"].isin(order)]
    drawn.add_scatter(
        x=dots["value"],
        y=[places[group] for group in dots["group"]],
        mode="markers",
        name="Single run",
        marker={"color": theme.faded(colours.accent, 0.45), "size": 9, "line": {"width": 0}},
        customdata=[plotly_text(name, 80) for name in dots["name"]],
        hovertemplate="%{customdata}<br>%{x:.3f}<extra></extra>",
    )
    drawn.add_scatter(
        x=shown["mean"],
        y=[places[group] for group in shown["group"]],
        mode="markers",
        name="Mean and range",
        marker={"color": colours.second, "size": 11, "symbol": "diamond"},
        error_x=theme.interval(shown["mean"], shown, colours.second, "lowest", "highest", thickness=1.6),
        customdata=[f"{score(mean)}, {n} run{'' if n == 1 else 's'}" for mean, n in _pairs(shown)],
        hovertemplate="Mean %{customdata}<extra></extra>",
    )
    drawn.update_yaxes(
        tickvals=list(range(len(order))), ticktext=labels, range=[-0.6, len(order) - 0.4], showgrid=False
    )
    drawn.update_xaxes(
        title_text=f"{plotly_text(sentence_case(metric), 40)} (held-out)", nticks=6, **axis_within(metric)
    )
    drawn.update_layout(showlegend=True)
    return drawn


def _pairs(shown: pd.DataFrame) -> list[tuple[float, int]]:
    return list(zip(shown["mean"].tolist(), shown["runs"].tolist(), strict=True))
