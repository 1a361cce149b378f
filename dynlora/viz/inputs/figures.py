"""Figures of the Inputs page: which groups open which gates, how groups fare, and the probe set in the plane."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_text, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette


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
        drawn.for_each_trace(
            lambda trace: trace.update(
                selectedpoints=[i for i, row in enumerate(trace.customdata) if row[0] in set(chosen)]
            )
        )
        drawn.update_traces(unselected={"marker": {"opacity": 0.25}})
    drawn.update_xaxes(title_text=axes[0], zeroline=False)
    drawn.update_yaxes(title_text=axes[1], zeroline=False)
    return drawn


def _points(examples: pd.DataFrame) -> dict[str, object]:
    words = [
        [int(position), _wrapped(text), plotly_text(group, 24), "–" if loss != loss else f"{loss:.3f}"]
        for position, text, group, loss in zip(
            examples.index,
            examples["text"],
            examples["group"],
            examples["loss"],
            strict=True,
        )
    ]
    return {
        "x": examples["x"],
        "y": examples["y"],
        "mode": "markers",
        "customdata": words,
        "hovertemplate": "%{customdata[1]}<br>%{customdata[2]}, loss %{customdata[3]} nats<extra></extra>",
    }


def gates_over_depth(depth: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the mean gate of each layer for some examples; columns example, layer, gate."""
    drawn = theme.figure(colours, 260)
    style = theme.contrasting(list(dict.fromkeys(depth["example"])))
    for example, part in depth.groupby("example", sort=False):
        colour, symbol, dash = style[str(example)]
        drawn.add_scatter(
            x=part["layer"],
            y=part["gate"],
            mode="lines+markers",
            name=plotly_text(sentence_case(str(example)), 32),
            line={"color": colour, "width": 1.6, "dash": dash},
            marker={"symbol": symbol, "size": 7},
            hovertemplate="%{fullData.name}<br>layer %{x}: gate %{y:.4f}<extra></extra>",
        )
    drawn.add_hline(y=1, line={"color": colours.muted, "width": 1, "dash": "dot"})
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text="Layer", dtick=1 if depth["layer"].nunique() <= 16 else None)
    drawn.update_yaxes(title_text="Mean gate (factor)")
    return drawn


def _wrapped(text: str, width: int = 56) -> str:
    short = str(text)[:220]
    return "<br>".join(plotly_text(short[start : start + width]) for start in range(0, max(len(short), 1), width))
