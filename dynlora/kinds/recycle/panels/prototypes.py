"""The prototypes of the classes in the plane."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.recycle import figures, frames
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
        frame = frames.places_frame(view.result)
        return None if frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return what the points are."""
        return (
            f"{len(data):,} prototypes (class means of the synthetic inputs) in their first two principal components. "
            "Classes that are close together are easily confused."
        )

    def table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the points."""
        return data

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the points, a colour for each teacher."""
        return figures.places(data, colours)
