"""A number of several models on several texts or data, each with its interval: a line for each, models by colour."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_text, short_names
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

MOST_LINES = 13
"""Lines that are drawn; the others are in the table."""

LABEL = 22
"""Characters of a name that the axis has room for; the whole name is shown on hovering."""


def model_intervals(frame: pd.DataFrame, line: str, unit: str, title: str, colours: Palette) -> go.Figure:
    """Draw means with their intervals.

    Args:
        frame: columns model, mean, low, high and the one that is named `line`.
        line: column of what has a line of its own.
        unit: of the numbers; plain text.
        title: of their axis; plain text.
        colours: of the mode.
    """
    lines = list(dict.fromkeys(frame[line]))[:MOST_LINES]
    looks = theme.styles(list(dict.fromkeys(frame["model"])))
    drawn = theme.figure(colours, 120 + 44 * len(lines), left=150)
    for place, (model, (colour, symbol, _)) in enumerate(looks.items()):
        rows = frame[(frame["model"] == model) & frame[line].isin(lines)]
        shift = 0.18 * (place - (len(looks) - 1) / 2)
        drawn.add_scatter(
            x=rows["mean"],
            y=[lines.index(name) + shift for name in rows[line]],
            mode="markers",
            name=plotly_text(model, 40),
            marker={"color": colour, "symbol": symbol, "size": 9},
            error_x=theme.interval(rows["mean"], rows, colour),
            customdata=[plotly_text(name, 80) for name in rows[line]],
            hovertemplate=f"%{{customdata}}: %{{x:.3f}} {plotly_text(unit, 40)}<extra>%{{fullData.name}}</extra>",
        )
    names = [plotly_text(name) for name in short_names(lines, LABEL)]
    drawn.update_yaxes(
        tickmode="array", tickvals=list(range(len(lines))), ticktext=names, range=[len(lines) - 0.5, -0.5]
    )
    drawn.update_xaxes(title_text=plotly_text(title, 60), rangemode="tozero")
    drawn.update_layout(showlegend=True)
    return drawn
