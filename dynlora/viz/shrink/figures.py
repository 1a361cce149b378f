"""The figures of the Shrink page: the cost of each size, and the model at one of them."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette
from dynlora.viz.shrink.model import METHODS, TITLES

DASHES = {"global": "solid", "uniform": "dash", "energy": "dashdot", "random": "dot"}
TICKS = (1, 2, 5, 10, 20, 50, 100)
"""Percent of the parameters that the axis names."""


def curve(points: pd.DataFrame, share: float, tolerance: float, colours: Palette) -> go.Figure:
    """Draw the loss change over the kept fraction of the parameters, a line for each way to choose.

    Args:
        points: as `model.points` returns them.
        share: that is chosen, 0 to 1.
        tolerance: nats that count as none.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 340)
    ink = dict(zip(METHODS, (colours.accent, colours.second, *theme.CATEGORICAL[2:4]), strict=True))
    for method in METHODS:
        part = points[points["method"] == method].sort_values("share")
        if part.empty:
            continue
        if method == METHODS[0]:
            _band(drawn, part, ink[method])
        drawn.add_scatter(
            x=100 * part["share"],
            y=part["difference"],
            mode="lines+markers",
            name=plotly_text(TITLES[method]),
            line={"color": ink[method], "dash": DASHES[method], "width": 2.4 if method == METHODS[0] else 1.5},
            marker={"size": 6 if method == METHODS[0] else 4},
            customdata=part[["parameters", "low", "high"]],
            hovertemplate="%{x:.1f} % of the parameters (%{customdata[0]:,})<br>%{y:+.4f} nats "
            "(%{customdata[1]:+.4f} to %{customdata[2]:+.4f})<extra>%{fullData.name}</extra>",
        )
    drawn.add_hline(y=0, line={"color": colours.muted, "width": 1})
    drawn.add_hline(y=tolerance, line={"color": colours.muted, "width": 1, "dash": "dot"})
    drawn.add_vline(x=100 * share, line={"color": colours.text, "width": 1.4})
    ticks = [tick for tick in TICKS if tick >= 100 * points["share"].min() * 0.7]
    drawn.update_xaxes(
        type="log", title_text="Parameters kept (%)", tickmode="array", tickvals=ticks, ticktext=list(map(str, ticks))
    )
    drawn.update_yaxes(title_text="Loss change (nats)")
    drawn.update_layout(showlegend=True)
    _zoom(drawn, points)
    return drawn


def _band(drawn: go.Figure, part: pd.DataFrame, colour: str) -> None:
    """Draw the interval of the line that is offered."""
    x = pd.concat([100 * part["share"], 100 * part["share"][::-1]])
    y = pd.concat([part["high"], part["low"][::-1]])
    drawn.add_scatter(
        x=x,
        y=y,
        mode="lines",
        fill="toself",
        fillcolor=theme.faded(colour, 0.18),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def _zoom(drawn: go.Figure, points: pd.DataFrame) -> None:
    """Leave room for the line that is offered: random choice may cost many times as much."""
    mine = points[points["method"] == METHODS[0]]
    top, bottom = float(mine["high"].max()), float(min(mine["low"].min(), 0.0))
    reach = max(top - bottom, 1e-3)
    drawn.update_yaxes(range=[bottom - 0.08 * reach, top + 0.6 * reach])
