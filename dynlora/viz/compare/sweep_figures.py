"""Figures of sweeps: a grid over two settings, and lines over one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_lines, plotly_text, score, sentence_case
from dynlora.viz.compare.figures import NAMED_COLUMNS, add_band
from dynlora.viz.compare.line_styles import LineStyle, line_styles
from dynlora.viz.compare.scatter_figures import scale
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

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
        colorbar={
            "title": {"text": result, "side": "right"},
            "thickness": 9,
            "outlinewidth": 0,
            "nticks": 5,
            "tickfont": {"size": 11, "color": colours.muted},
        },
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
