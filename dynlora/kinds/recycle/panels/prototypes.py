"""The prototypes of the classes in the plane."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.recycle import text
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
        frame = text.places_frame(view.result)
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
        looks = theme.styles(list(dict.fromkeys(data["teacher"])))
        for teacher, part in data.groupby("teacher", sort=False):
            colour, symbol, _ = looks[str(teacher)]
            names = [plotly_text(name, 40) for name in part["class"]]
            drawn.add_scatter(
                x=part["x"],
                y=part["y"],
                name=plotly_text(teacher, 40),
                text=names,
                mode="markers+text" if len(data) <= text.MOST_NAMED else "markers",
                textposition="top center",
                textfont={"size": 10, "color": colours.muted},
                marker={"color": colour, "symbol": symbol, "size": 9},
                hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            )
        drawn.update_xaxes(title_text="First principal component", showticklabels=False)
        drawn.update_yaxes(title_text="Second principal component", showticklabels=False)
        drawn.update_layout(showlegend=len(looks) <= text.MOST_NAMED)
        return drawn
