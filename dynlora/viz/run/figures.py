"""Figures of a run over its steps: loss, metrics, learning rate, budget, time; and what an evaluation found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.frames import smoothed
from dynlora.text import metric_words, plotly_text, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.limits import OWN_SCALE, axis_within
from dynlora.viz.kit.lines import HEIGHT, titled
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
    """Draw the held-out metrics by evaluation; columns name, step, value, and examples where they are samples.

    What has no upper end, such as perplexity, has a panel of its own; all that is a fraction shares one.
    """
    names = [str(name) for name in dict.fromkeys(metrics["name"])]
    panels = _panels(names)
    drawn = theme.figure(colours, HEIGHT + PANEL * (len(panels) - 1))
    place = {name: number for number, panel in enumerate(panels) for name in panel}
    style, size = theme.contrasting(names), "<br>n = %{customdata:,}" if "examples" in metrics else ""
    for name, part in metrics.groupby("name", sort=False):
        colour, symbol, dash = style[str(name)]
        drawn.add_scatter(
            x=part["step"], y=part["value"], mode="lines+markers",
            name=plotly_text(sentence_case(metric_words(str(name))), 40),
            yaxis=_axis_name(place[str(name)], "y"), line={"color": colour, "width": 1.8, "dash": dash},
            marker={"size": 7, "symbol": symbol},
            customdata=part["examples"] if size else None,
            hovertemplate=f"step %{{x}}<br>%{{fullData.name}} %{{y:.4f}}{size}<extra></extra>",
        )  # fmt: skip
    drawn.update_layout(showlegend=len(names) > 1)
    titled(drawn, "Score")
    for number, panel in enumerate(panels):
        values = metrics[metrics["name"].isin(panel)]["value"]
        drawn.layout[_axis_name(number, "yaxis")] = theme.axis(colours) | _panel_axis(
            panel, values, (number, len(panels)), is_single=metrics["step"].nunique() == 1
        )
    drawn.update_xaxes(anchor=_axis_name(len(panels) - 1, "y"))
    theme.single_step(drawn, metrics["step"])
    return drawn


PANEL, GAP = 120, 0.14
"""Height that each further panel of the metrics adds, pixels; and the gap between two, as a fraction of all."""

LOG_FROM = 8.0
"""Numbers without an upper end that reach over more than this factor are drawn by their logarithm."""


def _panels(names: Sequence[str]) -> list[list[str]]:
    """Return the metrics of each panel, from the top: those with a scale of their own alone, all others together."""
    shared = [name for name in names if name not in OWN_SCALE]
    return [*([name] for name in names if name in OWN_SCALE), *([shared] if shared or not names else [])]


def _axis_name(number: int, kind: str) -> str:
    """Return what plotly calls the axis of a panel."""
    return kind if number == 0 else f"{kind}{number + 1}"


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis: 1, 2 and 5 times powers of ten, only powers where that is many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = (1, 2, 5) if len(powers) < 5 else (1,)
    return [factor * 10.0**power for power in powers for factor in few]


def _panel_axis(names: Sequence[str], values: pd.Series, place: tuple[int, int], *, is_single: bool) -> dict[str, Any]:
    """Return the axis of a panel of metrics.

    Args:
        names: of its metrics.
        values: of all of them.
        place: number of the panel, and of how many.
        is_single: there is one evaluation: plotly would count from -1 to 1.
    """
    number, of = place
    high = (1 - GAP * (of - 1)) / of
    top = 1 - number * (high + GAP)
    title = sentence_case(metric_words(names[0])) if len(names) == 1 and names[0] in OWN_SCALE else "Score"
    look: dict[str, Any] = {"domain": [max(0.0, top - high), top], "title_text": plotly_text(title), "anchor": "x"}
    known = values[np.isfinite(values)]
    if title != "Score" and len(known) and known.min() > 0 and known.max() > LOG_FROM * known.min():
        ticks = _log_ticks(float(known.min()), float(known.max()))
        return look | {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}
    if is_single and values.between(0, 1).all():
        return look | {"range": [-0.03, 1.03]}
    return look | axis_within(*names)


def step_time(times: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the time of each step and the strategy's part of it; columns step, step_ms, strategy_ms."""
    drawn = theme.figure(colours, HEIGHT)
    unit, per = ("s", 1000) if len(times) and times["step_ms"].median() >= SECONDS_FROM else ("ms", 1)
    for column, name, colour in (
        ("step_ms", "Whole step", colours.accent),
        ("strategy_ms", "Strategy", colours.second),
    ):
        drawn.add_scatter(
            x=times["step"], y=times[column] / per, mode="lines", name=name, line={"color": colour, "width": 1.5},
            hovertemplate=f"step %{{x}}<br>{name} %{{y:.1f}} {unit}<extra></extra>",
        )  # fmt: skip
    drawn.update_yaxes(rangemode="tozero", tickformat=",")
    drawn.update_layout(showlegend=True)
    return titled(drawn, f"Time ({unit})")


SECONDS_FROM = 10_000
"""A median step of so many milliseconds is drawn in seconds."""


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
