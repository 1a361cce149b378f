"""How well the meta-LoRA learns from its synthetic episodes."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.recycle import result
from dynlora.store import queries
from dynlora.text import score
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class Episodes(Panel[pd.DataFrame]):
    """Accuracy on the queries of each episode."""

    id = "episodes"
    order = 5
    title = "Episodes"
    about = "Accuracy on the queries of synthetic episodes"
    missing = "No episode yet."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return the accuracy of each episode with its band, as `frames.episodes_frame` does."""
        scalars = view.store.ask(queries.scalars_frame, view.folder, None, None, result.POINTS)
        frame = result.episodes_frame(scalars)
        return None if frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return the first and the last mean."""
        first, last = data["mean"].iloc[0], data["mean"].iloc[-1]
        return (
            f"Accuracy on the queries of synthetic episodes, from {score(first)} to {score(last)} over {len(data):,} "
            f"episodes. Band: one standard deviation over {result.WINDOW} episodes. It says nothing about real texts."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the mean with its band."""
        drawn = theme.figure(colours, 260)
        x = pd.concat([data["step"], data["step"][::-1]])
        y = pd.concat([data["high"], data["low"][::-1]])
        drawn.add_scatter(
            x=x,
            y=y,
            mode="lines",
            fill="toself",
            fillcolor=theme.faded(colours.accent, 0.18),
            line={"width": 0},
            hoverinfo="skip",
        )
        drawn.add_scatter(
            x=data["step"],
            y=data["value"],
            mode="markers",
            marker={"color": theme.faded(colours.muted, 0.4), "size": 4},
            hovertemplate="step %{x}: %{y:.0%}<extra></extra>",
        )
        drawn.add_scatter(
            x=data["step"], y=data["mean"], mode="lines", line={"color": colours.accent, "width": 1.8}, hoverinfo="skip"
        )
        drawn.update_xaxes(title_text="Step")
        drawn.update_yaxes(title_text="Accuracy on queries", tickformat=".0%", range=[0, 1.05])
        return drawn
