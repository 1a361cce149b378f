"""How well the meta-LoRA learns from its synthetic episodes."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.recycle import figures, frames
from dynlora.store import queries
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.text import score
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
        scalars = view.store.ask(queries.scalars_frame, view.folder, None, None, frames.POINTS)
        frame = frames.episodes_frame(scalars)
        return None if frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return the first and the last mean."""
        first, last = data["mean"].iloc[0], data["mean"].iloc[-1]
        return (
            f"Accuracy on the queries of synthetic episodes, from {score(first)} to {score(last)} over {len(data):,} "
            f"episodes. Band: one standard deviation over {frames.WINDOW} episodes. It says nothing about real texts."
        )

    def table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the series with its band."""
        return data

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the mean with its band."""
        return figures.episodes(data, colours)
