"""The capacity map: a signal over modules and steps, with the use of the budget above it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import (
    MapView,
    bar_room,
    colour_of,
    even_cells,
    grouped,
    label_rows,
    map_height,
    row_edges,
    row_look,
    with_gaps,
)
from dynlora.viz.kit.theme import Palette


def capacity_map(
    values: pd.DataFrame,
    first_step: np.ndarray,
    modules: pd.DataFrame,
    budget: pd.DataFrame,
    view: MapView,
    colours: Palette,
) -> go.Figure:
    """Draw modules by steps, rows in groups, the use of the budget above against its limit.

    Args:
        values: one row per module as recorded, one column per bin, named by its last step.
        first_step: first step of each bin.
        modules: as `capacity.ordered` returns them.
        budget: as `capacity.budget_line` returns it.
        view: what else is shown.
        colours: of the mode.
    """  # fmt: skip
    drawn = theme.figure(colours, map_height(len(modules), 170, 330), left=78)
    edges, centres = row_edges(modules["group"])
    values = grouped(values) if view.grouping else values
    z = with_gaps(values.to_numpy(float)[modules["position"]], modules["group"])
    x = np.append(first_step - 0.5, values.columns.to_numpy()[-1] + 0.5)
    look, scale = row_look(len(modules)), colour_of(values, view, colours)
    cells, columns, rows = (z, x, edges) if look["ygap"] else even_cells(z, x, edges)
    drawn.add_heatmap(
        z=np.round(cells, 8).astype(np.float32), x=columns, y=rows, hoverongaps=False, ygap=look["ygap"], **scale,
        hovertemplate=f"%{{y}}<br>step %{{x:.0f}}<br>{plotly_text(view.title)} %{{z:.4~g}}<extra></extra>",
    )  # fmt: skip
    _handles(drawn, modules, centres, float(x[0]), view, colours)
    label_rows(drawn, modules, centres, colours)
    drawn.update_layout(
        margin={"r": bar_room(scale)},
        yaxis={"range": [edges[-1], edges[0]], "domain": [0, 0.84], "showgrid": False, "fixedrange": True},
        xaxis={"title": {"text": "Step"}, "anchor": "y", "showgrid": False, "range": [x[0], x[-1]]},
    )
    _draw_budget(drawn, budget, view, colours)
    _mark(drawn, modules, edges, centres, view, colours)
    return drawn


HANDLES = "modules"
"""Name of the points at the left of the rows."""


def invite_clicks(drawn: go.Figure) -> None:
    """Let the points of a map say what a click on them does, on a page that takes clicks."""
    words = "%{text}<br>click to follow this module<extra></extra>"
    drawn.update_traces(hovertemplate=words, selector={"name": HANDLES})


def _handles(
    drawn: go.Figure, modules: pd.DataFrame, centres: np.ndarray, x: float, view: MapView, colours: Palette
) -> None:
    """Draw a point at the left of each row: a heat map takes no clicks, a point does."""
    drawn.add_scatter(
        x=[x] * len(modules), y=centres, mode="markers", cliponaxis=False,
        marker={
            "symbol": "triangle-right", "size": row_look(len(modules))["handle"],
            "color": _handle_colours(modules, view, colours),
        },
        text=[plotly_text(name) for name in modules["name"]],
        customdata=[[int(position)] for position in modules["position"]],
        name=HANDLES, hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _handle_colours(modules: pd.DataFrame, view: MapView, colours: Palette) -> str | list[str]:
    """Return the colour of all points at the rows, or where a module is marked the colour of each."""
    if view.module is None:
        return colours.muted
    return [colours.second if name == view.module else colours.muted for name in modules["name"]]


def _draw_budget(drawn: go.Figure, budget: pd.DataFrame, view: MapView, colours: Palette) -> None:
    """Draw the share of the budget in use above the map, its limit dashed, the events as ticks."""
    shares = 100 * budget["share"]
    low = min(float(shares.min()), 100.0) if shares.notna().any() else 95.0
    top, bottom = max(100.0, float(np.nanmax([100.0, *shares.dropna()]))), low
    reach = max(top - bottom, 0.5)
    drawn.add_scatter(
        x=budget["step"], y=shares, mode="lines", line={"color": colours.second, "width": 1.6, "shape": "hv"},
        yaxis="y2", xaxis="x", customdata=budget["parameters"],
        hovertemplate="step %{x}<br>%{y:.2f} % of the budget<br>%{customdata:,.0f} parameters<extra></extra>",
    )  # fmt: skip
    drawn.add_scatter(
        x=list(view.events), y=[top + 0.45 * reach] * len(view.events), mode="markers", yaxis="y2", xaxis="x",
        marker={"symbol": "line-ns-open", "size": 7, "color": colours.muted, "line": {"width": 1.2}},
        hovertemplate="reallocation after step %{x}<extra></extra>", cliponaxis=False,
    )  # fmt: skip
    drawn.add_shape(
        type="line", xref="paper", x0=0, x1=1, yref="y2", y0=100, y1=100,
        line={"color": colours.muted, "width": 1, "dash": "dot"},
    )  # fmt: skip
    ticks = {100.0: "100 %"} if bottom >= 99.9 else {round(bottom, 1): f"{bottom:.1f} %", 100.0: "100 %"}
    drawn.update_layout(
        yaxis2={
            **theme.axis(colours), "domain": [0.88, 1], "anchor": "x", "fixedrange": True, "showgrid": False,
            "range": [bottom - 0.25 * reach, top + 0.7 * reach], "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
        }
    )  # fmt: skip


def _mark(
    drawn: go.Figure, modules: pd.DataFrame, edges: np.ndarray, centres: np.ndarray, view: MapView, colours: Palette
) -> None:
    """Draw the chosen step as one line through everything, and a frame around the chosen module's row."""
    if view.step is not None:
        drawn.add_shape(
            type="line", xref="x", x0=view.step, x1=view.step, yref="paper", y0=0, y1=1,
            line={"color": colours.text, "width": 1.4},
        )  # fmt: skip
    for centre in centres[(modules["name"] == view.module).to_numpy()][:1]:
        drawn.add_shape(
            type="rect", xref="paper", x0=0, x1=1, yref="y", y0=centre - 0.5, y1=centre + 0.5,
            line={"color": colours.second, "width": 1.6},
        )  # fmt: skip
