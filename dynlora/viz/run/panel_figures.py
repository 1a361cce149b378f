"""Figures of the card beside the list of runs: as low as they can be read."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.viz.kit import theme
from dynlora.viz.kit.lines import add_losses, titled
from dynlora.viz.kit.theme import Palette

HEIGHT = 190


def loss(train: pd.DataFrame, held_out: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the smoothed training loss and the held-out loss; frames hold step and value."""
    return add_losses(theme.figure(colours, HEIGHT), train, held_out, colours, "Training, smoothed")


def ranks(span: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the mean rank in a band from the lowest to the highest; columns step, lowest, mean, highest."""
    drawn = theme.figure(colours, HEIGHT)
    drawn.add_scatter(
        x=[*span["step"], *span["step"][::-1]], y=[*span["highest"], *span["lowest"][::-1]], fill="toself",
        mode="lines", line={"width": 0, "shape": "hv"}, fillcolor=theme.faded(colours.accent, 0.16),
        name="Lowest to highest", hoverinfo="skip",
    )  # fmt: skip
    drawn.add_scatter(
        x=span["step"], y=span["mean"], mode="lines", name="Mean", line={"color": colours.accent, "width": 2},
        customdata=span[["lowest", "highest"]].to_numpy(),
        hovertemplate="step %{x}<br>mean rank %{y:.2f}<br>from %{customdata[0]:.0f} to %{customdata[1]:.0f}"
        "<extra></extra>",
    )  # fmt: skip
    drawn.update_layout(showlegend=True)
    drawn.update_yaxes(rangemode="tozero", tickformat=",d", nticks=5)
    return titled(drawn, "Rank of a module")
