"""Charts that several panels draw: lines over steps, dots with intervals, and the limits of their axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.frames import smoothed
from dynlora.text import plotly_text, sentence_case, short_names
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
    traces: Any = drawn.data
    steps = [step for trace in traces if len(trace.x) for step in (trace.x[0], trace.x[-1])]
    drawn.update_xaxes(title_text="Step", dtick=1 if steps and max(steps) - min(steps) <= 8 else None)
    drawn.update_yaxes(title_text=plotly_text(sentence_case(title)))
    return drawn


def add_losses(
    drawn: go.Figure, train: pd.DataFrame, held_out: pd.DataFrame, colours: Palette, name: str, unit: str = "nats"
) -> go.Figure:
    """Add the smoothed training loss, under a name, and the held-out loss to a figure; frames hold step and value."""
    drawn.add_scatter(
        x=train["step"],
        y=smoothed(train["value"]),
        mode="lines",
        name=name,
        line={"color": colours.accent, "width": 2},
        hovertemplate="step %{x}<br>smoothed %{y:.4f}<extra></extra>",
    )
    if len(held_out):
        drawn.add_scatter(
            x=held_out["step"],
            y=held_out["value"],
            mode="lines+markers",
            name="Held-out",
            line={"color": colours.second, "width": 1.6},
            marker={"size": 7, "symbol": "diamond"},
            hovertemplate="step %{x}<br>held-out loss %{y:.4f}<extra></extra>",
        )
    drawn.update_layout(showlegend=True)
    return titled(drawn, f"Loss ({unit})")


def add_band(drawn: go.Figure, part: pd.DataFrame, label: str, colour: str) -> None:
    """Add the band of a group to a figure: from `low` to `high` over `x`, shown and hidden with the line `label`."""
    drawn.add_scatter(
        x=[*part["x"], *part["x"][::-1]],
        y=[*part["high"], *part["low"][::-1]],
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=theme.faded(colour, 0.16),
        hoverinfo="skip",
        showlegend=False,
        legendgroup=label,
        name=f"{label}, band",
    )


SHARES = (
    "accuracy",
    "f1",
    "macro_f1",
    "precision",
    "recall",
    "ece",
    "brier",
    "disagreement",
    "token_accuracy",
    "exact_match",
)
CORRELATIONS = ("matthews", "pearson", "spearman")
FROM_ZERO = ("loss", "mse", "mae", "rmse", "mean_squared_error")
FROM_ONE = ("perplexity",)
OWN_SCALE = (*FROM_ONE, *FROM_ZERO)
"""Metrics without an upper end: on one axis with fractions they would flatten them."""


def limits(metric: str) -> tuple[float | None, float | None]:
    """Return the least and the greatest value that a metric can have; None where there is no such value."""
    name = metric.split(" (")[0].strip().lower().removesuffix(" correlation").replace(" ", "_")
    if name in SHARES:
        return 0.0, 1.0
    if name in CORRELATIONS:
        return -1.0, 1.0
    if name in FROM_ONE:
        return 1.0, None
    return (0.0, None) if name in FROM_ZERO else (None, None)


def axis_within(*metrics: str) -> dict[str, Any]:
    """Return the settings of a linear axis that keep plotly's own range within what these metrics can be."""
    ranges = [limits(metric) for metric in metrics]
    low, high = _outermost((one[0] for one in ranges), min), _outermost((one[1] for one in ranges), max)
    clips = {name: value for name, value in (("clipmin", low), ("clipmax", high)) if value is not None}
    return {"autorangeoptions": clips} if clips else {}


def _outermost(values: Iterable[float | None], pick: Any) -> float | None:
    known = list(values)
    return None if not known or None in known else pick(known)


def score_dots(scores: pd.DataFrame, by: str, columns: Sequence[str], title: str, colours: Palette) -> go.Figure:
    """Draw a row of dots for each class or group.

    Args:
        scores: one row per class or group.
        by: the column with its name.
        columns: the scores to draw.
        title: of the axis, with its unit.
        colours: of the mode.
    """
    drawn = theme.figure(colours, int(np.clip(110 + 30 * len(scores), 200, 760)), left=90)
    rows = list(range(len(scores)))
    for column, (colour, symbol, _) in theme.contrasting(list(columns)).items():
        drawn.add_scatter(
            x=scores[column],
            y=rows,
            mode="markers",
            name=plotly_text(column, 40),
            marker={"color": colour, "symbol": symbol, "size": 10},
            hovertemplate=f"%{{y}}<br>{plotly_text(column, 40)} %{{x:.4f}}<extra></extra>",
        )
    drawn.update_layout(showlegend=len(columns) > 1)
    drawn.update_xaxes(title_text=plotly_text(sentence_case(title)))
    names = [plotly_text(name, 22) for name in scores[by]]
    drawn.update_yaxes(tickmode="array", tickvals=rows, ticktext=names, range=[len(rows) - 0.5, -0.5])
    return drawn


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
