"""Figures of components: those of one module over the steps, and those of all modules at one step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import MapView, colour_of, label_rows, map_height, row_edges, row_look, with_gaps
from dynlora.viz.kit.theme import Palette

MOST_ARROWS = 200
"""Copies that get an arrow; beyond that they would be a thicket."""

FEW = 16
"""Most components that all have their number at the axis."""


def component_map(
    rows: pd.DataFrame, copies: pd.DataFrame, whole: pd.DataFrame, look: MapView, colours: Palette
) -> go.Figure:
    """Draw a signal of each component of a module over the steps, and an arrow for each copy from slot to slot.

    Args:
        rows: one row a slot, one column a step; NaN where no component is.
        copies: of the module, columns step, source, target, source_factor, target_factor.
        whole: all that the colours reach over, so that modules can be told apart by them.
        look: what the colours mean, and the step that is marked.
        colours: of the mode.
    """
    drawn = theme.figure(colours, int(np.clip(120 + 22 * len(rows), 220, 560)))
    scale: dict[str, Any] = colour_of(whole, look, colours)
    scale["colorbar"] = {**scale["colorbar"], "len": 1.0}  # half of so low a figure has no room for the ticks
    drawn.add_heatmap(
        z=rows.to_numpy(float), x=[int(step) for step in rows.columns], y=list(range(len(rows))), hoverongaps=False,
        ygap=1, hovertemplate=f"component %{{y}}, step %{{x}}<br>{plotly_text(look.title)} %{{z:.4f}}<extra></extra>",
        **scale,
    )  # fmt: skip
    _draw_copies(drawn, copies, colours)
    if look.step is not None and len(rows.columns) > 1:
        drawn.add_vline(x=look.step, line={"color": colours.text, "width": 1.4})
    drawn.update_xaxes(title_text="Step", showgrid=False)
    drawn.update_yaxes(
        title_text="Component", autorange="reversed", showgrid=False, dtick=1 if len(rows) <= FEW else None
    )
    return drawn


def _draw_copies(drawn: go.Figure, copies: pd.DataFrame, colours: Palette) -> None:
    """Draw an arrow for each of the last copies, and a dot that tells the pointer about each."""
    ends = copies.tail(MOST_ARROWS)
    for step, source, target in zip(ends["step"], ends["source"], ends["target"], strict=True):
        drawn.add_annotation(
            x=step, y=target, ax=step, ay=source, axref="x", ayref="y", text="", showarrow=True,
            arrowhead=2, arrowsize=1, arrowwidth=1.3, arrowcolor=colours.second,
        )  # fmt: skip
    if len(copies):
        drawn.add_scatter(
            x=copies["step"], y=copies["target"], mode="markers",
            marker={"color": colours.second, "size": 6, "symbol": "circle"},
            customdata=copies[["source", "source_factor", "target_factor"]].to_numpy(float),
            hovertemplate="step %{x}: component %{y} (factor %{customdata[2]:.3f}) became a copy of component "
            "%{customdata[0]:.0f} (factor %{customdata[1]:.3f})<extra></extra>",
        )  # fmt: skip


def all_components(
    values: pd.DataFrame, modules: pd.DataFrame, whole: pd.DataFrame, look: MapView, colours: Palette
) -> go.Figure:
    """Draw a signal of the components of all modules at one step, modules by components, rows in groups.

    Args:
        values: one row a module as recorded, one column a component; NaN where there is none.
        modules: as `capacity.ordered` returns them.
        whole: as in `component_map`.
        look: what the colours mean; the row of its `module` gets a frame.
        colours: of the mode.
    """
    drawn = theme.figure(colours, map_height(len(modules), 110, 260), left=78)
    edges, centres = row_edges(modules["group"])
    columns = values.shape[1]
    drawn.add_heatmap(
        z=with_gaps(values.to_numpy(float)[modules["position"]], modules["group"]), x=list(range(columns)), y=edges,
        hoverongaps=False, ygap=row_look(len(modules))["ygap"], xgap=2 if columns <= FEW else 0.6,
        **colour_of(whole, look, colours),
        hovertemplate=f"%{{y}}<br>component %{{x}}<br>{plotly_text(look.title)} %{{z:.4~g}}<extra></extra>",
    )  # fmt: skip
    label_rows(drawn, modules, centres, colours)
    drawn.update_xaxes(
        title_text="Component", showgrid=False, dtick=1 if columns <= FEW else None, range=[-0.5, columns - 0.5]
    )
    drawn.update_yaxes(range=[edges[-1], edges[0]], showgrid=False)
    for centre in centres[(modules["name"] == look.module).to_numpy()][:1]:
        drawn.add_shape(
            type="rect", xref="paper", x0=0, x1=1, yref="y", y0=centre - 0.5, y1=centre + 0.5,
            line={"color": colours.second, "width": 1.6},
        )  # fmt: skip
    return drawn
