"""Figures of many runs as points and lines: any two of their numbers, and many at once."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_lines, plotly_text, sentence_case
from dynlora.viz.compare.figures import NAMED_COLUMNS
from dynlora.viz.compare.line_styles import LineStyle, line_styles
from dynlora.viz.compare.scatter_model import APART, QUARTERS, Axis, format_value
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

FEW = 8
"""Most values of an axis that are all written."""


def scatter(
    points: pd.DataFrame,
    titles: tuple[str, str],
    colours: Palette,
    *,
    logarithmic: tuple[bool, bool] = (False, False),
    styles: Mapping[str, LineStyle] | None = None,
) -> go.Figure:
    """Draw a point for each run, in the colour and shape of its method.

    Args:
        points: columns name, strategy (the method), x, y.
        titles: of the axes, with their units.
        colours: of the mode.
        logarithmic: whether each axis is.
        styles: of the methods; None takes them in the order of the points.
    """
    names = [str(name) for name in dict.fromkeys(points["strategy"])]
    styles = line_styles(names, colours, names) if styles is None else styles
    drawn = theme.figure(colours, 330 + 20 * (len(names) if len(names) <= NAMED_COLUMNS else 2))
    what = [plotly_text(sentence_case(one), 60) for one in titles]
    for name in names:
        part, style = points[points["strategy"] == name], styles[name]
        drawn.add_scatter(
            x=part["x"],
            y=part["y"],
            mode="markers",
            name=plotly_text(name, 60),
            customdata=[plotly_text(run, 80) for run in part["name"]],
            marker={
                "color": theme.faded(style.colour, 0.75),
                "symbol": style.symbol,
                "size": 9,
                "line": {"width": 0},
            },
            hovertemplate=f"%{{customdata}}<br>%{{fullData.name}}<br>{what[0]}: %{{x:.5~g}}<br>"
            f"{what[1]}: %{{y:.5~g}}<extra></extra>",
        )
    drawn.update_layout(showlegend=0 < len(names) <= NAMED_COLUMNS)
    for axis, name, is_log in zip(("x", "y"), what, logarithmic, strict=True):
        drawn.update_layout({f"{axis}axis": {"title": {"text": name}, **scale(points[axis], logarithmic=is_log)}})
    return drawn


def scale(values: pd.Series, *, logarithmic: bool) -> dict[str, Any]:
    """Return the scale of an axis; few values that are well apart, as those of a sweep do, are its ticks."""
    known = np.array(sorted(set(values)), dtype=float)
    found: dict[str, Any] = {"type": "log", "dtick": "D2", "tickformat": ".3~g"} if logarithmic else {"type": "linear"}
    if not 1 < len(known) <= FEW:
        return found
    gaps = np.diff(np.log(known) if logarithmic else known)
    if gaps.min() < APART * gaps.sum():
        return found
    words = [format_value(float(value)) for value in known]
    return {"type": found["type"], "tickmode": "array", "tickvals": known.tolist(), "ticktext": words}


SHARES = (1.0, 0.7, 0.5, 0.32)
"""How far up the sequential scale the quarters are, the best one first."""


def parallel(lines: pd.DataFrame, axes: Sequence[Axis], colours: Palette) -> go.Figure:
    """Draw a line for each run over upright axes, the better its result the stronger; the best quarter is on top.

    Args:
        lines: as `relations.lines` returns them.
        axes: in the order of the lines' columns.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 400, left=20)
    places = np.array([one.places for one in axes], dtype=float).T.reshape(len(lines), len(axes))
    looks = dict(zip(QUARTERS, [*(theme.shade(colours, share) for share in SHARES), colours.muted], strict=True))
    for quarter in reversed(QUARTERS):
        chosen = np.flatnonzero((lines["quarter"] == quarter).to_numpy())
        if not len(chosen):
            continue
        is_best = quarter == QUARTERS[0]
        x = np.tile([*range(len(axes)), np.nan], len(chosen))
        y = np.hstack([places[chosen], np.full((len(chosen), 1), np.nan)]).ravel()
        drawn.add_scatter(
            x=x,
            y=y,
            mode="lines+markers",
            name=quarter,
            connectgaps=False,
            hoverinfo="text",
            hovertext=[text for row in chosen for text in (*_texts(lines, int(row), axes), "")],
            line={"color": theme.faded(looks[quarter], 0.9 if is_best else 0.6), "width": 2 if is_best else 1.1},
            marker={"color": looks[quarter], "size": 5 if is_best else 4},
        )
    _uprights(drawn, axes, colours)
    drawn.update_layout(showlegend=True, legend={"traceorder": "reversed"}, hovermode="closest", margin={"r": 46})
    return drawn


def _texts(lines: pd.DataFrame, row: int, axes: Sequence[Axis]) -> list[str]:
    name = plotly_text(lines["name"].iloc[row], 80)
    return [f"{name}<br>{plotly_text(one.title, 60)}: {plotly_text(one.words[row], 60)}" for one in axes]


def _uprights(drawn: go.Figure, axes: Sequence[Axis], colours: Palette) -> None:
    """Draw the axes themselves, their names and the values that are written beside them."""
    for place, one in enumerate(axes):
        drawn.add_shape(
            type="line", x0=place, x1=place, y0=0, y1=1, line={"color": colours.muted, "width": 1}, layer="below"
        )
        for height, words in one.ticks:
            drawn.add_annotation(
                x=place,
                y=height,
                text=plotly_lines(words, 22, 60),
                showarrow=False,
                xshift=5,
                yshift=8,
                xanchor="left",
                align="left",
                font={"size": 11, "color": colours.text},
                borderpad=0,
                bgcolor=theme.faded(colours.panel, 0.8),
            )
    titles = ["<br>".join(plotly_text(part) for part in textwrap.wrap(sentence_case(one.title), 12)) for one in axes]
    drawn.update_xaxes(
        tickmode="array",
        tickvals=list(range(len(axes))),
        ticktext=titles,
        showgrid=False,
        range=[-0.2, len(axes) - 0.85],
        ticklabeloverflow="allow",
    )
    drawn.update_yaxes(visible=False, range=[-0.06, 1.1])
