"""Figures of the Inputs page: which groups open which gates, how groups fare, and the probe set in the plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.gate_effect import GateEffect
from dynlora.text import plotly_text, sentence_case
from dynlora.viz.kit import strong_language, theme
from dynlora.viz.kit.limits import axis_within
from dynlora.viz.kit.theme import Palette


def gate_map(
    gates: pd.DataFrame, modules: pd.DataFrame, effect: GateEffect | None, colours: Palette, *, hide: bool = True
) -> go.Figure:
    """Draw the mean gate of each group and module, 1 is neutral, and above it how much the groups explain.

    Args:
        gates: one row per group, one column per module as recorded.
        modules: as `capacity.described` returns them.
        effect: of the groups on the gates; None when it is not known.
        colours: of the mode.
        hide: leave out what is not beyond chance.
    """
    order = modules["position"].to_numpy()
    values = gates.to_numpy(float)[:, order]
    shown = np.where(effect.found[order], values, np.nan) if effect is not None and hide else values
    reach = max(float(np.nanmax(np.abs(values - 1))) if np.isfinite(values).any() else 0.0, 1e-3)
    short = [plotly_text(name) for name in modules["short"]]
    whole = [plotly_text(name) for name in modules["name"]]
    drawn = theme.figure(colours, int(np.clip(210 + 34 * len(gates), 300, 700)))
    drawn.add_heatmap(
        z=np.round(shown, 5), x=list(range(len(short))), y=[plotly_text(group, 24) for group in gates.index],
        zmin=1 - reach, zmax=1 + reach, colorscale=colours.diverging_scale, hoverongaps=False,
        xgap=theme.column_gap(len(short)), ygap=1,
        customdata=np.tile(np.array(whole, dtype=object), (len(gates), 1)),
        colorbar={
            "title": {"text": "Gate (factor)", "side": "right"}, "thickness": 9, "outlinewidth": 0, "nticks": 5,
            "tickfont": {"size": 11, "color": colours.muted}, "len": 0.72, "y": 0, "yanchor": "bottom",
        },
        hovertemplate="%{y}<br>%{customdata}<br>gate %{z:.4f}<extra></extra>",
    )  # fmt: skip
    drawn.update_xaxes(**theme.name_axis(short, colours), title_text="Module (by kind and depth)")
    drawn.update_yaxes(type="category", autorange="reversed", showgrid=False, domain=[0, 0.7])
    if effect is not None:
        _draw_effect(drawn, effect, order, whole, colours)
    return drawn


def _draw_effect(
    drawn: go.Figure, effect: GateEffect, order: np.ndarray, names: Sequence[str], colours: Palette
) -> None:
    """Draw the share that the groups explain of each gate above the map, the baseline of chance as a line."""
    share = 100 * effect.share[order]
    drawn.add_bar(
        x=list(range(len(share))), y=share, yaxis="y2", customdata=list(names),
        marker={"color": [colours.accent if found else colours.muted for found in effect.found[order]]},
        hovertemplate="%{customdata}<br>the groups explain %{y:.1f} % of its variation<extra></extra>",
    )  # fmt: skip
    drawn.add_shape(
        type="line", xref="paper", x0=0, x1=1, yref="y2", y0=100 * effect.baseline, y1=100 * effect.baseline,
        line={"color": colours.second, "width": 1.3, "dash": "dash"},
    )  # fmt: skip
    drawn.update_layout(
        yaxis2={
            **theme.axis(colours), "domain": [0.78, 1], "anchor": "x", "rangemode": "tozero", "nticks": 4,
            "title": {"text": "Explained (%)", "font": {"size": 11, "color": colours.muted}},
        }
    )  # fmt: skip


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
    drawn.update_xaxes(title_text="Step")
    drawn.update_yaxes(title_text=plotly_text(sentence_case(title)), **axis_within(title))
    theme.single_step(drawn, series["step"])
    return drawn


def probe_scatter(
    examples: pd.DataFrame,
    by: str,
    colours: Palette,
    groups: Sequence[str] = (),
    *,
    chosen: Sequence[int] = (),
    title: str = "",
    axes: tuple[str, str] = ("First principal component", "Second principal component"),
) -> go.Figure:
    """Draw the probe set in the plane.

    Args:
        examples: columns text, group, x, y, loss, prediction; maybe one with numbers to colour by.
        by: `group` and `prediction` colour by name, any other column by its number.
        colours: of the mode.
        groups: names of the groups in the order of their colours, the same as in the other charts.
        chosen: positions of the examples to mark; the others fade.
        title: of the colour bar.
        axes: titles of both axes.
    """
    drawn = theme.figure(colours, 400)
    if by in ("group", "prediction"):
        names = examples[by].astype(str)
        style = theme.contrasting(list(dict.fromkeys([*(groups if by == "group" else []), *names])))
        for name, part in examples.groupby(names, sort=False):
            colour, symbol, _ = style[str(name)]
            drawn.add_scatter(**_points(part), name=plotly_text(name, 24), marker={"color": colour, "symbol": symbol})
        drawn.update_layout(showlegend=True)
    else:
        is_gate = by == "gate"
        scale = colours.diverging_scale if is_gate else colours.sequential_scale
        reach = max(float((examples[by] - 1).abs().max()), 1e-3) if is_gate else 0.0
        marker = {"colorscale": scale, "showscale": True, "color": examples[by], "cmin": 1 - reach if is_gate else 0}
        bar = {
            "title": {"text": plotly_text(sentence_case(title or by)), "side": "right"},
            "thickness": 9,
            "outlinewidth": 0,
        }
        drawn.add_scatter(**_points(examples), marker={**marker, "colorbar": bar})
        if is_gate:
            drawn.update_traces(marker={"cmax": 1 + reach})
    drawn.update_traces(marker={"size": 8, "opacity": 0.9, "line": {"width": 0.6, "color": colours.muted}})
    if chosen:
        for trace in drawn.data:
            trace.selectedpoints = [i for i, row in enumerate(trace.customdata) if row[0] in set(chosen)]
        drawn.update_traces(unselected={"marker": {"opacity": 0.25}})
    drawn.update_xaxes(title_text=axes[0], zeroline=False)
    drawn.update_yaxes(title_text=axes[1], zeroline=False)
    return drawn


def _points(examples: pd.DataFrame) -> dict[str, object]:
    words = [
        [int(position), _wrapped(text), plotly_text(group, 24), "–" if loss != loss else f"{loss:.3f}"]
        for position, text, group, loss in zip(
            examples.index,
            map(strong_language.shown, examples["text"]),
            examples["group"],
            examples["loss"],
            strict=True,
        )  # fmt: skip
    ]
    return {
        "x": examples["x"], "y": examples["y"], "mode": "markers", "customdata": words,
        "hovertemplate": "%{customdata[1]}<br>%{customdata[2]}, loss %{customdata[3]} nats<extra></extra>",
    }  # fmt: skip


def gates_over_depth(depth: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the mean gate of each layer for some examples; columns example, layer, gate."""
    drawn = theme.figure(colours, 260)
    style = theme.contrasting(list(dict.fromkeys(depth["example"])))
    for example, part in depth.groupby("example", sort=False):
        colour, symbol, dash = style[str(example)]
        drawn.add_scatter(
            x=part["layer"], y=part["gate"], mode="lines+markers", name=plotly_text(sentence_case(str(example)), 32),
            line={"color": colour, "width": 1.6, "dash": dash}, marker={"symbol": symbol, "size": 7},
            hovertemplate="%{fullData.name}<br>layer %{x}: gate %{y:.4f}<extra></extra>",
        )  # fmt: skip
    drawn.add_hline(y=1, line={"color": colours.muted, "width": 1, "dash": "dot"})
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text="Layer", dtick=1 if depth["layer"].nunique() <= 16 else None)
    drawn.update_yaxes(title_text="Mean gate (factor)")
    return drawn


def _wrapped(text: str, width: int = 56) -> str:
    short = str(text)[:220]
    return "<br>".join(plotly_text(short[start : start + width]) for start in range(0, max(len(short), 1), width))
