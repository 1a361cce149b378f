"""The cosine similarity of each module, as points."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.text import minus, plotly_text, short_path
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class SimilarityByModule(Panel[pd.DataFrame]):
    """Cosine similarity of the two updates of each module, in the model's order."""

    id = "similarity"
    order = 1
    title = "Similarity by module"
    about = "Cosine of the two updates as vectors"
    missing = "No module is compared yet."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns module and cosine; None before the first module is compared."""
        frame = pd.DataFrame(list(view.result.items()), columns=["module", "cosine"])
        return None if frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Say which module is most alike in the two runs."""
        most = data.sort_values("cosine", kind="stable").iloc[-1]
        cosine = minus(f"{most['cosine']:.2f}")
        return f"The two updates are most alike in {most['module']}, with a cosine of {cosine}."

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw a point for each module."""
        drawn = theme.figure(colours, 260)
        names = [plotly_text(short_path(name), 80) for name in data["module"]]
        drawn.add_scatter(
            x=list(range(len(names))),
            y=data["cosine"],
            mode="markers",
            marker={"color": colours.accent},
            customdata=names,
            hovertemplate="%{customdata}: %{y:.3f}<extra></extra>",
        )
        drawn.update_xaxes(title_text="Module, in the model's order")
        drawn.update_yaxes(title_text="Cosine similarity")
        return drawn
