"""The learning rate."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.frames import at_highest
from dynlora.text import number
from dynlora.viz.kit import charts
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class LearningRate(Panel[pd.DataFrame]):
    """The learning rate by step."""

    id = "lr"
    order = 15
    part = "Cost"
    title = "Learning rate"
    missing = "No learning rate has been recorded yet."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns step and value."""
        series = view.result.series("lr")
        return None if series["value"].isna().all() else series

    def caption(self, data: pd.DataFrame) -> str:
        """Return where the learning rate peaked, and its present value."""
        known = data.dropna(subset=["value"])
        peak = known.loc[at_highest(known["value"])]
        last = number(float(known["value"].iloc[-1]))
        return f"Peak {number(peak['value'])} at step {int(peak['step'])}; current value {last}."

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the line."""
        return charts.line(data, "Learning rate", colours)
