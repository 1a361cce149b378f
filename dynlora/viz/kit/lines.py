"""Line charts over steps."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.frames import smoothed
from dynlora.text import plotly_text, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

HEIGHT = 250


def line(
    series: pd.DataFrame, title: str, colours: Palette, *, limit: float | None = None, zero: bool = True, tick: str = ""
) -> go.Figure:
    """Draw one number over the steps; `series` holds step and value, `title` names it with its unit.

    Args:
        series: columns step and value.
        title: of the axis.
        colours: of the mode.
        limit: a dashed line; None for none.
        zero: start the axis at zero.
        tick: format of its numbers, empty for plotly's own.
    """
    drawn = theme.figure(colours, HEIGHT)
    drawn.add_scatter(
        x=series["step"],
        y=series["value"],
        mode="lines",
        line={"color": colours.accent, "width": 1.8},
        hovertemplate=f"step %{{x}}<br>{plotly_text(title)}: %{{y:.5~g}}<extra></extra>",
    )
    if limit is not None:
        drawn.add_hline(y=limit, line={"color": colours.muted, "width": 1, "dash": "dot"})
    if zero:
        drawn.update_yaxes(rangemode="tozero")
    drawn.update_yaxes(exponentformat="power", tickformat=tick)
    return titled(drawn, title)


def titled(drawn: go.Figure, title: str) -> go.Figure:
    """Title the axes: steps below, `title` at the side; few steps get a tick each."""
    steps = [step for trace in drawn.data if len(trace.x) for step in (trace.x[0], trace.x[-1])]
    drawn.update_xaxes(title_text="Step", dtick=1 if steps and max(steps) - min(steps) <= 8 else None)
    drawn.update_yaxes(title_text=plotly_text(sentence_case(title)))
    return drawn


def add_losses(drawn: go.Figure, train: pd.DataFrame, held_out: pd.DataFrame, colours: Palette, name: str) -> go.Figure:
    """Add the smoothed training loss, under a name, and the held-out loss to a figure; frames hold step and value."""
    drawn.add_scatter(
        x=train["step"], y=smoothed(train["value"]), mode="lines", name=name,
        line={"color": colours.accent, "width": 2}, hovertemplate="step %{x}<br>smoothed %{y:.4f}<extra></extra>",
    )  # fmt: skip
    if len(held_out):
        drawn.add_scatter(
            x=held_out["step"], y=held_out["value"], mode="lines+markers", name="Held-out",
            line={"color": colours.second, "width": 1.6}, marker={"size": 7, "symbol": "diamond"},
            hovertemplate="step %{x}<br>held-out loss %{y:.4f}<extra></extra>",
        )  # fmt: skip
    drawn.update_layout(showlegend=True)
    return titled(drawn, "Loss (nats)")
