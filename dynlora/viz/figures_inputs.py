"""Figures of the Inputs page: which groups open which gates, how groups fare, and the probe set in the plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.viz import theme
from dynlora.viz.labels import plotly_text
from dynlora.viz.theme import Palette


def gate_map(gates: pd.DataFrame, modules: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the mean gate of each group and module; 1 is neutral.

    Args:
        gates: one row per group, one column per module as recorded.
        modules: as `capacity.described` returns them.
        colours: of the mode.
    """
    values = gates.to_numpy(float)[:, modules["position"]]
    reach = max(float(np.nanmax(np.abs(values - 1))) if np.isfinite(values).any() else 0.0, 1e-3)
    short = [plotly_text(name) for name in modules["short"]]
    whole = [plotly_text(name) for name in modules["name"]]
    drawn = theme.figure(colours, int(np.clip(130 + 34 * len(gates), 220, 640)))
    drawn.add_heatmap(
        z=np.round(values, 5), x=list(range(len(short))), y=[plotly_text(group, 24) for group in gates.index],
        zmin=1 - reach, zmax=1 + reach, colorscale=colours.diverging_scale, xgap=1, ygap=1,
        customdata=np.tile(np.array(whole, dtype=object), (len(gates), 1)),
        colorbar={
            "title": {"text": "gate, factor", "side": "right"}, "thickness": 9, "outlinewidth": 0, "nticks": 5,
            "tickfont": {"size": 11, "color": colours.muted},
        },
        hovertemplate="%{y}<br>%{customdata}<br>gate %{z:.4f}<extra></extra>",
    )  # fmt: skip
    drawn.update_xaxes(
        tickmode="array", tickvals=list(range(len(short))), ticktext=short, tickangle=-60, showgrid=False,
        tickfont={"size": 9 if len(short) > 20 else 11, "color": colours.muted},
    )  # fmt: skip
    if len(short) > 80:
        drawn.update_xaxes(showticklabels=False, title_text="module, by kind and depth")
    drawn.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return drawn


def group_lines(series: pd.DataFrame, title: str, colours: Palette) -> go.Figure:
    """Draw a number of each group over the evaluations; `series` holds step, group, value."""
    drawn = theme.figure(colours, 260)
    style = theme.contrasting(list(dict.fromkeys(series["group"])))
    for group, part in series.groupby("group", sort=False):
        colour, symbol, dash = style[str(group)]
        drawn.add_scatter(
            x=part["step"], y=part["value"], mode="lines+markers", name=plotly_text(group, 24),
            line={"color": colour, "width": 1.8, "dash": dash}, marker={"symbol": symbol, "size": 7},
            hovertemplate="%{fullData.name}<br>step %{x}: %{y:.4f}<extra></extra>",
        )  # fmt: skip
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text="step")
    drawn.update_yaxes(title_text=plotly_text(title))
    return drawn


def probe_scatter(examples: pd.DataFrame, by: str, colours: Palette, groups: Sequence[str] = ()) -> go.Figure:
    """Draw the probe set in the plane.

    Args:
        examples: columns text, group, x, y, loss.
        by: `group` colours by group, any other column by its number.
        colours: of the mode.
        groups: names of the groups in the order of their colours, the same as in the other charts.
    """
    drawn = theme.figure(colours, 380)
    if by == "group":
        style = theme.contrasting(list(dict.fromkeys([*groups, *examples["group"].astype(str)])))
        for group, part in examples.groupby(examples["group"].astype(str), sort=False):
            colour, symbol, _ = style[str(group)]
            drawn.add_scatter(**_points(part), name=plotly_text(group, 24), marker={"color": colour, "symbol": symbol})
        drawn.update_layout(showlegend=True)
    else:
        scale = {"colorscale": colours.sequential_scale, "showscale": True, "color": examples[by], "cmin": 0}
        bar = {"title": {"text": plotly_text(by), "side": "right"}, "thickness": 9, "outlinewidth": 0}
        drawn.add_scatter(**_points(examples), marker={**scale, "colorbar": bar})
    drawn.update_traces(marker={"size": 8, "opacity": 0.9, "line": {"width": 0.6, "color": colours.muted}})
    drawn.update_xaxes(title_text="first principal component", zeroline=False)
    drawn.update_yaxes(title_text="second principal component", zeroline=False)
    return drawn


def _points(examples: pd.DataFrame) -> dict[str, object]:
    words = [
        [_wrapped(text), plotly_text(group, 24), "–" if loss != loss else f"{loss:.3f}"]
        for text, group, loss in zip(examples["text"], examples["group"], examples["loss"], strict=True)
    ]
    return {
        "x": examples["x"], "y": examples["y"], "mode": "markers", "customdata": words,
        "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}, loss %{customdata[2]} nats<extra></extra>",
    }  # fmt: skip


def _wrapped(text: str, width: int = 56) -> str:
    short = str(text)[:220]
    return "<br>".join(plotly_text(short[start : start + width]) for start in range(0, max(len(short), 1), width))
