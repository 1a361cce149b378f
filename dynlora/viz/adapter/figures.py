"""Figures of an adapter that came without a run: a number over depth and kind, norms, singular values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import number, plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import row_edges
from dynlora.viz.kit.theme import Palette

NAMED_CELLS = 400
"""Most cells of a map whose numbers are written into them."""


def depth_map(grid: pd.DataFrame, title: str, unit: str, colours: Palette) -> go.Figure:
    """Draw a number of each module over depth and kind.

    Args:
        grid: kinds by layers, as `adapter_spectra.over_depth` returns it.
        title: what the number is.
        unit: its unit.
        colours: of the mode.
    """
    values = grid.to_numpy(float)
    high = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    high = high if high > 0 else 1.0
    drawn = theme.figure(colours, int(np.clip(120 + 34 * len(grid), 190, 760)), left=78)
    drawn.add_heatmap(
        z=values,
        x=list(range(grid.shape[1])),
        y=list(range(len(grid))),
        zmin=0,
        zmax=high,
        xgap=2,
        ygap=2,
        colorscale=colours.sequential_scale,
        hoverongaps=False,
        colorbar=_bar(unit, colours),
        customdata=[[[_place(kind, layer)] for layer in grid.columns] for kind in grid.index],
        hovertemplate=f"%{{customdata[0]}}<br>{plotly_text(title)} %{{z:.4~g}}<extra></extra>",
    )
    if values.size <= NAMED_CELLS and grid.shape[1] <= 16:
        drawn.update_layout(annotations=_numbers(values, high, colours))
    ticks = {"tickmode": "array", "showgrid": False}
    layers = [plotly_text(name, 12) for name in grid.columns]
    every = max(1, len(layers) // 24)
    drawn.update_xaxes(**ticks, tickvals=list(range(0, len(layers), every)), ticktext=layers[::every])
    drawn.update_xaxes(title_text="Layer")
    drawn.update_yaxes(
        **ticks,
        tickvals=list(range(len(grid))),
        ticktext=[plotly_text(kind, 24) for kind in grid.index],
        autorange="reversed",
    )
    return drawn


def _place(kind: object, layer: object) -> str:
    word = str(layer)
    return plotly_text(f"{kind}, {f'layer {word}' if word.isdigit() else word}")


def _numbers(values: np.ndarray, high: float, colours: Palette) -> list[dict[str, object]]:
    """Return each cell's number as an annotation, in the ink that is read on its colour."""
    dark, light = (colours.text, colours.panel) if colours.mode == "light" else (colours.panel, colours.text)
    strong_ink, weak_ink = (light, dark) if colours.mode == "light" else (dark, light)
    return [
        {
            "x": int(column),
            "y": int(row),
            "showarrow": False,
            "text": number(float(values[row, column])),
            "font": {"size": 11, "color": strong_ink if values[row, column] > 0.55 * high else weak_ink},
        }
        for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True)
    ]


def norm_lines(grid: pd.DataFrame, colours: Palette, height: int = 300) -> go.Figure:
    """Draw the norm of the update over depth, a line for each kind; `grid` as in `depth_map`, `height` in pixels."""
    drawn = theme.figure(colours, height)
    places = list(range(grid.shape[1]))
    for kind, (colour, symbol, dash) in theme.kind_styles([str(kind) for kind in grid.index]).items():
        drawn.add_scatter(
            x=places,
            y=grid.loc[kind],
            mode="lines+markers",
            name=plotly_text(kind, 24),
            connectgaps=False,
            line={"color": colour, "width": 1.6, "dash": dash},
            marker={"symbol": symbol, "size": 7},
            hovertemplate="%{fullData.name}, layer %{x}<br>norm %{y:.4~g}<extra></extra>",
        )
    drawn.update_layout(showlegend=len(grid) <= 16)
    every = max(1, len(places) // 24)
    layers = [plotly_text(name, 12) for name in grid.columns]
    drawn.update_xaxes(title_text="Layer", tickmode="array", tickvals=places[::every], ticktext=layers[::every])
    drawn.update_yaxes(title_text="Frobenius norm of the update", rangemode="tozero")
    return drawn


def spectra_map(values: pd.DataFrame, modules: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the singular values of each module's update, the largest on the left.

    Args:
        values: as `adapter_spectra.spectra` returns them.
        modules: as `adapter_spectra.described` returns them.
        colours: of the mode.
    """
    visible = modules.head(len(values))
    edges, centres = row_edges(visible["label"])
    rows = values.to_numpy(float)
    breaks = np.flatnonzero(visible["label"].ne(visible["label"].shift()).to_numpy())[1:]
    high = float(np.nanmax(rows)) if np.isfinite(rows).any() else 1.0
    drawn = theme.figure(colours, int(np.clip(150 + 10.5 * len(visible), 260, 900)), left=78)
    drawn.add_heatmap(
        z=np.insert(rows, breaks, np.nan, axis=0) if len(breaks) else rows,
        x=list(values.columns),
        y=edges,
        zmin=0,
        zmax=high if high > 0 else 1.0,
        xgap=1,
        ygap=0.6,
        hoverongaps=False,
        colorscale=colours.sequential_scale,
        colorbar=_bar("singular value", colours),
        hovertemplate="%{y}<br>component %{x}<br>singular value %{z:.4~g}<extra></extra>",
    )
    names = [
        f"{plotly_text(short)}<br>{plotly_text(name)}"
        for short, name in zip(visible["short"], visible["name"], strict=True)
    ]
    drawn.update_yaxes(tickmode="array", tickvals=centres, ticktext=names, showticklabels=False, showgrid=False)
    drawn.update_yaxes(range=[edges[-1], edges[0]])
    places = pd.Series(centres).groupby(visible["label"].to_numpy(), sort=False).mean()
    drawn.update_layout(
        annotations=[
            {
                "x": 0,
                "xref": "paper",
                "xshift": -8,
                "xanchor": "right",
                "y": float(place),
                "showarrow": False,
                "text": plotly_text(label, 24),
                "font": {"size": 12, "color": colours.text},
            }
            for label, place in places.items()
        ]
    )
    drawn.update_xaxes(
        title_text="Component (largest first)", showgrid=False, dtick=1 if len(values.columns) < 13 else None
    )
    return drawn


def _bar(unit: str, colours: Palette) -> dict[str, object]:
    heading = {"text": plotly_text(unit), "side": "right", "font": {"size": 11}}
    return theme.colour_bar("", colours, title=heading, nticks=5, exponentformat="power")
