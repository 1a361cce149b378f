"""Figures of the Playground of a run that writes: what a text loses without each module."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette
from dynlora.viz.playground.figures import layer_map

ADDS = "Contribution to log p(text) (nats)"
MOST_BARS = 24
"""Modules with a bar: the largest contributions, up or down; the map has all."""


def ablation_bars(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw what the modules with the largest effect add to a text, sorted; those that change it stand out."""
    largest = frame.loc[frame["adds"].abs().sort_values(ascending=False, kind="stable").index[:MOST_BARS]]
    shown = largest.sort_values("adds", ascending=False, kind="stable")
    names = [plotly_text(name) for name in shown["short"]]
    flips = shown["flips"].to_numpy(bool)
    drawn = theme.figure(colours, int(np.clip(110 + 20 * len(shown), 200, 620)), left=90)
    for part, name, colour in (
        (~flips, "Text does not change without it", colours.accent),
        (flips, "Text changes without it", colours.second),
    ):
        places = np.flatnonzero(part)
        drawn.add_bar(
            y=places, x=shown["adds"].to_numpy(float)[places], orientation="h", name=name, marker={"color": colour},
            customdata=[names[place] for place in places],
            hovertemplate="%{customdata}<br>%{x:+.4f} nats<extra></extra>",
        )  # fmt: skip
    drawn.add_vline(x=0, line={"color": colours.muted, "width": 1})
    drawn.update_layout(barmode="overlay", showlegend=bool(flips.any()))
    drawn.update_xaxes(title_text=ADDS)
    drawn.update_yaxes(
        tickmode="array", tickvals=list(range(len(names))), ticktext=names, autorange="reversed", showgrid=False
    )
    return drawn


def ablation_map(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw what each module adds to a text, kinds of modules over layers."""
    table = frame.pivot_table(index="label", columns="layer", values="adds", aggfunc="sum", sort=False)
    table = table.reindex(columns=sorted(table.columns))
    return layer_map(table, 0.0, 1e-9, ("Contribution (nats)", "%{z:+.4f} nats"), colours)
