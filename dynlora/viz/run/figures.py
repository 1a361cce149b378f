"""Figures of a run over its steps: loss, metrics, learning rate, budget, time; and what an evaluation found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.viz.kit import theme
from dynlora.viz.kit.limits import axis_within
from dynlora.viz.kit.lines import HEIGHT, smoothed, titled
from dynlora.viz.kit.text import plotly_text
from dynlora.viz.kit.theme import Palette


def loss_lines(train: pd.DataFrame, validation: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the training loss, pale as it is and bold smoothed, and the held-out loss; frames hold step and value."""
    drawn = theme.figure(colours, HEIGHT)
    drawn.add_scatter(
        x=train["step"], y=train["value"], mode="lines", name="Each step",
        line={"color": theme.faded(colours.accent, 0.3), "width": 1},
        hovertemplate="step %{x}<br>loss %{y:.4f}<extra></extra>",
    )  # fmt: skip
    return add_losses(drawn, train, validation, colours, "Smoothed")


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


def metric_lines(metrics: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the held-out metrics by evaluation; columns name, step, value, and examples where they are samples."""
    drawn = theme.figure(colours, HEIGHT)
    names = list(dict.fromkeys(metrics["name"]))
    style, size = theme.contrasting(names), "<br>n = %{customdata:,}" if "examples" in metrics else ""
    for name, part in metrics.groupby("name", sort=False):
        colour, symbol, dash = style[str(name)]
        drawn.add_scatter(
            x=part["step"], y=part["value"], mode="lines+markers", name=plotly_text(name, 40),
            line={"color": colour, "width": 1.8, "dash": dash}, marker={"size": 7, "symbol": symbol},
            customdata=part["examples"] if size else None,
            hovertemplate=f"step %{{x}}<br>%{{fullData.name}} %{{y:.4f}}{size}<extra></extra>",
        )  # fmt: skip
    drawn.update_layout(showlegend=len(names) > 1)
    drawn.update_yaxes(**axis_within(*map(str, names)))
    if metrics["step"].nunique() == 1:
        _around_one_step(drawn, int(metrics["step"].iloc[0]), metrics["value"])
    return titled(drawn, "Score")


def _around_one_step(drawn: go.Figure, step: int, values: pd.Series) -> None:
    """Give the axes of a single evaluation the ends that scores have: plotly would count from -1 to 1."""
    drawn.update_xaxes(range=[step - 0.5, step + 0.5], tickvals=[step])
    if values.between(0, 1).all():
        drawn.update_yaxes(range=[-0.03, 1.03])


def step_time(times: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the time of each step and the strategy's part of it; columns step, step_ms, strategy_ms."""
    drawn = theme.figure(colours, HEIGHT)
    for column, name, colour in (
        ("step_ms", "Whole step", colours.accent),
        ("strategy_ms", "Strategy", colours.second),
    ):
        drawn.add_scatter(
            x=times["step"], y=times[column], mode="lines", name=name, line={"color": colour, "width": 1.5},
            hovertemplate=f"step %{{x}}<br>{name} %{{y:.1f}} ms<extra></extra>",
        )  # fmt: skip
    drawn.update_yaxes(rangemode="tozero", tickformat=",")
    drawn.update_layout(showlegend=True)
    return titled(drawn, "Time (ms)")


def confusion(counts: Sequence[Sequence[float]], labels: Sequence[str], colours: Palette) -> go.Figure:
    """Draw a confusion matrix: rows are the truth, columns the prediction, colour the share of the row."""
    table = np.asarray(counts, dtype=float)
    names = [plotly_text(label, 14) for label in labels]
    totals = table.sum(axis=1, keepdims=True)
    share = np.divide(100 * table, totals, out=np.zeros_like(table), where=totals > 0)
    drawn = theme.figure(colours, int(np.clip(110 + 46 * len(names), 220, 640)))
    drawn.add_heatmap(
        z=share, x=list(range(len(names))), y=list(range(len(names))), customdata=table, xgap=2, ygap=2,
        colorscale=colours.sequential_scale, zmin=0, zmax=100, showscale=False,
        hovertemplate="%{customdata:,} examples, %{z:.1f} % of their class<extra></extra>",
    )  # fmt: skip
    if len(names) <= 12:
        _write_cells(drawn, table, share, colours)
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
    drawn.update_xaxes(**ticks, title_text="Predicted", tickangle=0 if len(names) <= 4 else None)
    drawn.update_yaxes(**ticks, title_text="True", autorange="reversed")
    return drawn


def _write_cells(drawn: go.Figure, table: np.ndarray, share: np.ndarray, colours: Palette) -> None:
    dark_ink, light_ink = (colours.text, colours.panel) if colours.mode == "light" else (colours.panel, colours.text)
    for row, column in np.ndindex(*table.shape):
        strong = share[row, column] > 55
        ink = (light_ink if strong else dark_ink) if colours.mode == "light" else (dark_ink if strong else light_ink)
        drawn.add_annotation(
            x=column, y=row, showarrow=False, font={"size": 12, "color": ink},
            text=f"{table[row, column]:,.0f}<br>{share[row, column]:.0f} %",
        )  # fmt: skip
