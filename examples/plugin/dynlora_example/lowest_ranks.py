"""The modules with the smallest rank, as bars."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.run_reading import RunReading
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette

SHOWN = 10
"""Bars at most."""


class LowestRanks(Panel[pd.DataFrame]):
    """The modules with the smallest rank at the last step."""

    id = "lowest_ranks"
    order = 90
    title = "Smallest ranks"
    missing = "No rank was recorded yet."
    part = "Capacity"

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns module and rank, the smallest first; None before the first step."""
        run: RunReading = view.result
        ranks = run.values("rank", None)
        if ranks is None:
            return None
        frame = pd.DataFrame({"module": run.modules["short"], "rank": ranks[run.modules["position"]]})
        return frame.sort_values("rank", kind="stable").head(SHOWN).reset_index(drop=True)

    def caption(self, data: pd.DataFrame) -> str:
        """Say which module has the smallest rank."""
        return f"The smallest rank is {data['rank'].iloc[0]:.0f}, of {data['module'].iloc[0]}."

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw a bar for each module."""
        drawn = theme.figure(colours, 260)
        drawn.add_bar(x=data["rank"], y=data["module"], orientation="h", marker={"color": colours.accent})
        drawn.update_xaxes(title_text="Rank")
        return drawn
