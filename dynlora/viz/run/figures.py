"""Figures of a run over its steps: loss, metrics, learning rate, budget, time; and what an evaluation found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dynlora.viz.kit import theme
from dynlora.viz.kit.text import plotly_text
from dynlora.viz.kit.theme import Palette


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
