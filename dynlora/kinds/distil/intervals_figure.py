"""The figure of a distillation: a number per token for each model, with its interval, a line for each teacher."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.viz.kit import theme
from dynlora.viz.kit.text import plotly_text, short_names
from dynlora.viz.kit.theme import Palette

MOST_TEACHERS = 12
"""Teachers that are drawn; the others are in the table."""

LABEL = 22
"""Characters of a teacher's name that the axis has room for; the whole name is shown on hovering."""


def intervals(frame: pd.DataFrame, title: str, colours: Palette) -> go.Figure:
    """Draw means with their intervals, models by colour and shape.

    Args:
        frame: columns model, teacher, mean, low, high.
        title: of the numbers' axis.
        colours: of the mode.
    """
    teachers = list(dict.fromkeys(frame["teacher"]))[: MOST_TEACHERS + 1]
    looks = theme.styles(list(dict.fromkeys(frame["model"])))
    drawn = theme.figure(colours, 120 + 44 * len(teachers), left=150)
    for place, (model, part) in enumerate(frame.groupby("model", sort=False)):
        part = part[part["teacher"].isin(teachers)]
        colour, symbol, _ = looks[str(model)]
        shift = 0.18 * (place - (len(looks) - 1) / 2)
        drawn.add_scatter(
            x=part["mean"], y=[teachers.index(one) + shift for one in part["teacher"]], mode="markers",
            name=plotly_text(model, 40), marker={"color": colour, "symbol": symbol, "size": 9},
            error_x={"type": "data", "symmetric": False, "array": part["high"] - part["mean"],
                     "arrayminus": part["mean"] - part["low"], "color": colour, "thickness": 1.4},
            customdata=[plotly_text(one, 80) for one in part["teacher"]],
            hovertemplate="%{customdata}: %{x:.3f} nats per token<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    names = [plotly_text(one) for one in short_names(teachers, LABEL)]
    drawn.update_yaxes(
        tickmode="array", tickvals=list(range(len(teachers))), ticktext=names, range=[len(teachers) - 0.5, -0.5]
    )
    drawn.update_xaxes(title_text=title, rangemode="tozero")
    drawn.update_layout(showlegend=True)
    return drawn
