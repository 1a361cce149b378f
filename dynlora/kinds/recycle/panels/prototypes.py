"""The prototypes of the classes in the plane."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.recycle import result
from dynlora.text import plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class Prototypes(Panel[pd.DataFrame]):
    """Class means of the synthetic inputs in their first two principal components."""

    id = "prototypes"
    order = 7
    title = "Map of the prototypes"
    missing = "The map appears at the end of the recycle."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns teacher, class, x, y."""
        frame = result.places_frame(view.result)
        return None if frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return what the points are."""
        return (
            f"{len(data):,} prototypes (class means of the synthetic inputs) in their first two principal components. "
            "Classes that are close together are easily confused."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the points, a colour for each teacher."""
        drawn = theme.figure(colours, 320)
        looks = theme.styles(sorted(set(data["teacher"])))
        sides = _label_sides(data)
        for teacher, part in data.groupby("teacher", sort=False):
            colour, symbol, _ = looks[str(teacher)]
            names = [plotly_text(name, 40) for name in part["class"]]
            drawn.add_scatter(
                x=part["x"],
                y=part["y"],
                name=plotly_text(teacher, 40),
                text=names,
                mode="markers+text" if len(data) <= result.MOST_NAMED else "markers",
                textposition=sides[part.index].tolist(),
                cliponaxis=False,
                textfont={"size": 10, "color": colours.muted},
                marker={"color": colour, "symbol": symbol, "size": 9},
                hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            )
        drawn.update_xaxes(title_text="First principal component", showticklabels=False, range=_wide(data["x"]))
        drawn.update_yaxes(title_text="Second principal component", showticklabels=False, range=_wide(data["y"]))
        drawn.update_layout(showlegend=len(looks) <= result.MOST_NAMED)
        return drawn


NEAR = 0.12
"""Part of the map's width or height within which the labels of two points would cover each other."""


def _label_sides(data: pd.DataFrame) -> pd.Series:
    """Return where the label of each point is: above it, or below one that has another near it."""
    places = data[["x", "y"]].to_numpy(float)
    extent = np.ptp(places, axis=0)
    scaled = places / np.where(extent > 0, extent, 1.0)
    sides: list[str] = []
    for number, place in enumerate(scaled):
        near = (np.abs(scaled[:number] - place) < NEAR).all(axis=1)
        above = any(sides[other] == "top center" for other in np.flatnonzero(near))
        sides.append("bottom center" if above else "top center")
    return pd.Series(sides, index=data.index)


def _wide(values: pd.Series) -> list[float]:
    """Return a range with room for the labels of the outermost points."""
    low, high = float(values.min()), float(values.max())
    room = 0.14 * (high - low or 1.0)
    return [low - room, high + room]
