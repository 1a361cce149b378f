"""The figures of a recycle: agreement by class, episodes with their band, few-shot accuracy, prototypes."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dynlora.kinds.recycle.frames import LOW, META
from dynlora.viz.kit import theme
from dynlora.viz.kit.text import plotly_text
from dynlora.viz.kit.theme import Palette

MOST_NAMED = 24
"""Classes that an axis can name."""


def inversion(loss: pd.DataFrame, agreement: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the inversion's loss and, on the right axis, the mean agreement with the teachers."""
    drawn = theme.figure(colours, 260)
    drawn.add_scatter(
        x=loss["step"], y=loss["value"], mode="lines", name="Loss", line={"color": colours.second, "width": 1.6},
        hovertemplate="step %{x}: loss %{y:.3f}<extra></extra>",
    )  # fmt: skip
    drawn.add_scatter(
        x=agreement["step"], y=agreement["value"], mode="lines", name="Agreement", yaxis="y2",
        line={"color": colours.accent, "width": 1.6, "dash": "dash"},
        hovertemplate="step %{x}: agreement %{y:.0%}<extra></extra>",
    )  # fmt: skip
    drawn.update_xaxes(title_text="Step")
    right = {**theme.axis(colours), "overlaying": "y", "side": "right", "range": [0, 1.05], "tickformat": ".0%",
             "showgrid": False, "title": _title("Agreement", colours), "dtick": 0.25}  # fmt: skip
    drawn.update_layout(showlegend=True, yaxis2=right, margin={"r": 56})
    drawn.update_yaxes(title_text="Loss", selector={"anchor": "x"}, rangemode="tozero")
    return drawn


def agreement(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the agreement of each class, the lowest first."""
    known = frame.dropna(subset=["agreement"])
    drawn = theme.figure(colours, 260)
    names = [plotly_text(name, 30) for name in known["class"]]
    drawn.add_bar(
        x=list(range(len(known))), y=known["agreement"], marker={"color": colours.accent},
        customdata=[[name, plotly_text(teacher, 40)] for name, teacher in zip(names, known["teacher"], strict=True)],
        hovertemplate="%{customdata[0]} (%{customdata[1]}): %{y:.0%}<extra></extra>",
    )  # fmt: skip
    drawn.add_hline(y=LOW, line={"color": colours.muted, "width": 1, "dash": "dot"})
    drawn.update_yaxes(title_text="Agreement", tickformat=".0%", range=[0, 1.05])
    drawn.update_xaxes(
        tickmode="array", tickvals=list(range(len(known))), ticktext=names, tickangle=-45,
        showticklabels=len(known) <= MOST_NAMED, title_text="" if len(known) <= MOST_NAMED else "Classes, lowest first",
    )  # fmt: skip
    return drawn


def episodes(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the accuracy of the episodes: its mean with a band, each episode as a pale point."""
    drawn = theme.figure(colours, 260)
    x = pd.concat([frame["step"], frame["step"][::-1]])
    y = pd.concat([frame["high"], frame["low"][::-1]])
    drawn.add_scatter(
        x=x, y=y, mode="lines", fill="toself", fillcolor=theme.faded(colours.accent, 0.18), line={"width": 0},
        hoverinfo="skip",
    )  # fmt: skip
    drawn.add_scatter(
        x=frame["step"], y=frame["value"], mode="markers", marker={"color": theme.faded(colours.muted, 0.4), "size": 4},
        hovertemplate="step %{x}: %{y:.0%}<extra></extra>",
    )  # fmt: skip
    drawn.add_scatter(
        x=frame["step"], y=frame["mean"], mode="lines", line={"color": colours.accent, "width": 1.8}, hoverinfo="skip"
    )
    drawn.update_xaxes(title_text="Step")
    drawn.update_yaxes(title_text="Accuracy on queries", tickformat=".0%", range=[0, 1.05])
    return drawn


def accuracy(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the few-shot accuracy of each method with its interval, a panel per number of shots."""
    shots = sorted(frame["shots"].unique())
    names = list(dict.fromkeys(frame["name"]))[::-1]
    drawn = make_subplots(
        rows=len(shots), cols=1, vertical_spacing=min(0.16 / len(shots) + 0.1, 0.9 / max(1, len(shots) - 1))
    )
    drawn.update_layout(theme.figure(colours, (90 + 26 * len(names)) * len(shots), left=150).layout)
    for place, number in enumerate(shots, 1):
        part = frame[frame["shots"] == number]
        drawn.add_scatter(
            x=part["mean"], y=[plotly_text(name) for name in part["name"]], mode="markers", row=place, col=1,
            marker={"size": 10, "color": [colours.accent if one == META else colours.muted for one in part["method"]]},
            error_x={"type": "data", "symmetric": False, "array": part["high"] - part["mean"],
                     "arrayminus": part["mean"] - part["low"], "color": colours.muted, "thickness": 1.4},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>", showlegend=False,
        )  # fmt: skip
        look = {**theme.axis(colours), "title": _title(f"Accuracy, {number}-shot", colours), "tickformat": ".0%"}
        drawn.update_xaxes(**look, row=place, col=1)
        drawn.update_yaxes(**theme.axis(colours), categoryorder="array", categoryarray=names, row=place, col=1)
    return drawn


def _title(words: str, colours: Palette) -> dict[str, Any]:
    """Return the title of an axis in the look of all others."""
    return {**theme.axis(colours)["title"], "text": words}


def places(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the prototypes, classes of a teacher in one colour and shape."""
    drawn = theme.figure(colours, 320)
    looks = theme.styles(list(dict.fromkeys(frame["teacher"])))
    for teacher, part in frame.groupby("teacher", sort=False):
        colour, symbol, _ = looks[str(teacher)]
        names = [plotly_text(name, 40) for name in part["class"]]
        drawn.add_scatter(
            x=part["x"], y=part["y"], name=plotly_text(teacher, 40), text=names,
            mode="markers+text" if len(frame) <= MOST_NAMED else "markers", textposition="top center",
            textfont={"size": 10, "color": colours.muted}, marker={"color": colour, "symbol": symbol, "size": 9},
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    drawn.update_xaxes(title_text="First principal component", showticklabels=False)
    drawn.update_yaxes(title_text="Second principal component", showticklabels=False)
    drawn.update_layout(showlegend=len(looks) <= MOST_NAMED)
    return drawn
