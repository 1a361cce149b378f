"""Whether a high reward goes with a right answer."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import figures, frames
from dynlora.kinds.decode.points import point_of
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.text import percent
from dynlora.viz.kit.theme import Palette


class Reliability(Panel[pd.DataFrame]):
    """Right final answers by the reward of kept steps."""

    id = "reliability"
    order = 5
    title = "Is the reward a reward?"
    about = "Right final answers by the reward of kept steps"
    missing = "No accepted step was judged at this point."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return the bins of the chosen point, as `frames.reliability` does."""
        point = point_of(view)
        frame = None if point is None else frames.reliability(view.result, point.key)
        return None if frame is None or frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return the share of right answers in the lowest and the highest bin."""
        first, last = data.iloc[0], data.iloc[-1]
        if len(data) < 2:
            return f"All {int(first['steps']):,} kept steps have rewards of one bin, so they cannot be compared."
        return (
            f"Fraction of right final answers by the reward of kept steps: {percent(first['right'], 0)} in the lowest "
            f"bin ({int(first['solutions']):,} solutions), {percent(last['right'], 0)} in the highest "
            f"({int(last['solutions']):,}). A flat line means that the reward says nothing about the answer."
        )

    def table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the bins."""
        return data

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the share of right answers by bin."""
        return figures.reliability(data, colours)
