"""Figures of many runs as points and lines: any two of their numbers, and many at once."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_lines, plotly_text, score, sentence_case
from dynlora.viz.compare.figures import NAMED_COLUMNS
from dynlora.viz.compare.scatter_model import APART, QUARTERS, Axis, format_value
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import add_band
from dynlora.viz.kit.run_colours import LineStyle, line_styles
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
    axis: dict[str, Any] = {"type": "log", "dtick": "D2", "tickformat": ".3~g"} if logarithmic else {"type": "linear"}
    if not 1 < len(known) <= FEW:
        return axis
    gaps = np.diff(np.log(known) if logarithmic else known)
    if gaps.min() < APART * gaps.sum():
        return axis
    words = [format_value(float(value)) for value in known]
    return {"type": axis["type"], "tickmode": "array", "tickvals": known.tolist(), "ticktext": words}


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


WRITTEN_CELLS = 120
"""Most cells of a grid whose numbers are written; of more the pointer tells."""

UPRIGHT = 8
"""Most columns, and letters of a name, that are upright; more and longer ones are turned, or they would overlap."""


def grid(cells: pd.DataFrame, titles: tuple[str, str, str], colours: Palette, *, low_is_good: bool) -> go.Figure:
    """Draw the mean result of each pair of values, the best cell in a frame.

    Args:
        cells: as `sweeps.grid` returns them.
        titles: of the columns, of the rows, and of the result.
        colours: of the mode.
        low_is_good: less is better.
    """
    columns, sides = (list(dict.fromkeys(cells[name])) for name in ("across", "down"))
    means, counts, spreads = (np.full((len(sides), len(columns)), np.nan) for _ in range(3))
    for row in cells.to_dict("records"):
        place = sides.index(row["down"]), columns.index(row["across"])
        means[place], counts[place], spreads[place] = row["mean"], row["n"], row["spread"]
    is_turned = len(columns) > UPRIGHT and max(map(len, columns)) > UPRIGHT
    tops = [plotly_text(one, 40) if is_turned else plotly_lines(one, 22, 60) for one in columns]
    turned = 6 * max(map(len, tops)) if is_turned else 0
    drawn = theme.figure(colours, int(np.clip(120 + 46 * len(sides) + turned, 220, 760)), left=80)
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    result, is_written = plotly_text(titles[2], 40), means.size <= WRITTEN_CELLS
    drawn.add_heatmap(
        z=means,
        x=list(range(len(columns))),
        y=list(range(len(sides))),
        xgap=3,
        ygap=3,
        zmin=low,
        zmax=high,
        customdata=np.stack([counts, spreads], axis=-1),
        colorscale=colours.sequential_scale,
        hoverongaps=False,
        showscale=not is_written,
        reversescale=low_is_good,
        colorbar=theme.colour_bar(result, colours, nticks=5),
        hovertemplate=f"{plotly_text(titles[0], 40)} %{{x}}<br>{plotly_text(titles[1], 40)} %{{y}}<br>"
        f"{result} %{{z:.4f}}, deviation %{{customdata[1]:.4f}}, n = %{{customdata[0]}}<extra></extra>",
    )
    if is_written:
        _write_cells(drawn, means, counts)
    best = np.unravel_index(np.nanargmin(means) if low_is_good else np.nanargmax(means), means.shape)
    drawn.add_shape(
        type="rect",
        x0=best[1] - 0.48,
        x1=best[1] + 0.48,
        y0=best[0] - 0.48,
        y1=best[0] + 0.48,
        line={"color": colours.second, "width": 2},
    )
    ticks = {"tickmode": "array", "showgrid": False}
    drawn.update_xaxes(
        **ticks,
        tickvals=list(range(len(columns))),
        ticktext=tops,
        tickangle=-60 if is_turned else None,
        title_text=plotly_text(sentence_case(titles[0]), 60),
    )
    drawn.update_yaxes(
        **ticks,
        tickvals=list(range(len(sides))),
        ticktext=[plotly_lines(one, 22, 60) for one in sides],
        title_text=plotly_text(sentence_case(titles[1]), 60),
        autorange="reversed",
    )
    return drawn


def _write_cells(drawn: go.Figure, means: np.ndarray, counts: np.ndarray) -> None:
    """Write mean and number of runs into each cell; Plotly shrinks the letters to the cell and contrasts them."""
    text = np.full(means.shape, "", dtype=object)
    for place in zip(*np.nonzero(~np.isnan(means)), strict=True):
        text[place] = f"{score(float(means[place]))}<br>n = {counts[place]:.0f}"
    drawn.data[0].update(text=text, texttemplate="%{text}")


def along(
    lines: pd.DataFrame,
    titles: tuple[str, str],
    colours: Palette,
    *,
    logarithmic: bool,
    styles: Mapping[str, LineStyle] | None = None,
) -> go.Figure:
    """Draw a line for each group over the values of one setting, and a band from its lowest to its highest run.

    Args:
        lines: as `sweeps.curves` returns them.
        titles: of the axes, with their units.
        colours: of the mode.
        logarithmic: whether the x axis is.
        styles: of the groups; None takes them in the order of the lines.
    """
    names = [str(name) for name in dict.fromkeys(lines["group"])]
    styles = line_styles(names, colours, names) if styles is None else styles
    drawn = theme.figure(colours, 300 + 20 * (len(names) if len(names) <= NAMED_COLUMNS else 2))
    what = [plotly_text(one, 60) for one in titles]
    for name in names:
        part, label = lines[lines["group"] == name], plotly_text(name, 80)
        colour, symbol, dash = styles[name].colour, styles[name].symbol, styles[name].dash
        if part["n"].max() > 1:
            add_band(drawn, part, label, colour)
        drawn.add_scatter(
            x=part["x"],
            y=part["mean"],
            mode="lines+markers",
            name=label,
            legendgroup=label,
            line={"color": colour, "width": 1.8, "dash": dash},
            marker={"symbol": symbol, "size": 8},
            customdata=part[["n", "low", "high"]].to_numpy(),
            hovertemplate=f"%{{fullData.name}}<br>{what[0]} %{{x:.5~g}}<br>{what[1]} %{{y:.4f}}, from "
            "%{customdata[1]:.4f} to %{customdata[2]:.4f}, n = %{customdata[0]}<extra></extra>",
        )
    drawn.update_layout(showlegend=0 < len(names) <= NAMED_COLUMNS)
    drawn.update_xaxes(title_text=sentence_case(what[0]), **scale(lines["x"], logarithmic=logarithmic))
    drawn.update_yaxes(title_text=sentence_case(what[1]))
    return drawn
