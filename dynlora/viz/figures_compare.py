"""Figures that set runs side by side."""

# pyright: reportArgumentType=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.viz import theme
from dynlora.viz.figures_capacity import row_edges
from dynlora.viz.labels import plotly_text
from dynlora.viz.theme import Palette


def final_ranks(ranks: pd.DataFrame, modules: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the last ranks, modules by runs, rows in groups by kind.

    Args:
        ranks: one row per module name, one column per run (its display name); NaN where a run has no such module.
        modules: as `capacity.described` returns them, in the order of the rows.
        colours: of the mode.
    """
    edges, centres = row_edges(modules["label"])
    rows = ranks.reindex(modules["name"]).to_numpy(float)
    breaks = np.flatnonzero(modules["label"].ne(modules["label"].shift()).to_numpy())[1:]
    high = float(np.nanmax(rows)) if np.isfinite(rows).any() else 1.0
    drawn = theme.figure(colours, int(np.clip(150 + 10.5 * len(modules), 330, 900)), left=78)
    drawn.add_heatmap(
        z=np.insert(rows, breaks, np.nan, axis=0) if len(breaks) else rows, x=list(range(ranks.shape[1])), y=edges,
        zmin=0, zmax=max(high, 1.0), colorscale=colours.sequential_scale, xgap=4, ygap=0.6, hoverongaps=False,
        colorbar={
            "title": {"text": "rank, components", "side": "right"}, "thickness": 9, "outlinewidth": 0, "len": 0.5,
            "nticks": 5, "tickfont": {"size": 11, "color": colours.muted},
        },
        hovertemplate="%{x}<br>%{y}<br>rank %{z}<extra></extra>",
    )  # fmt: skip
    names = [
        f"{plotly_text(short)}<br>{plotly_text(name)}"
        for short, name in zip(modules["short"], modules["name"], strict=True)
    ]
    drawn.update_yaxes(tickmode="array", tickvals=centres, ticktext=names, showticklabels=False, showgrid=False)
    drawn.update_yaxes(range=[edges[-1], edges[0]])
    for label, part in pd.Series(centres).groupby(modules["label"].to_numpy(), sort=False):
        drawn.add_annotation(
            x=0, xref="paper", xshift=-8, xanchor="right", y=part.mean(), showarrow=False,
            text=plotly_text(label, 24), font={"size": 12, "color": colours.text},
        )  # fmt: skip
    drawn.update_xaxes(
        tickmode="array", tickvals=list(range(ranks.shape[1])), showgrid=False,
        ticktext=[plotly_text(name, 28) for name in ranks.columns],
    )  # fmt: skip
    return drawn
