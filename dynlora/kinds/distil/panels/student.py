"""Divergence of the student from its teachers on its training texts, by step."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import run_summary
from dynlora.store import queries
from dynlora.text import score
from dynlora.viz.kit import charts
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette

POINTS = 600
"""Most points of the series."""


class Student(Panel[pd.DataFrame]):
    """KL(teacher || student) of the texts of each step."""

    id = "student"
    order = 4
    title = "Student"
    about = "KL(teacher || student) of the texts of each step"
    missing = "The student has not begun yet."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns step and value, nats per token."""
        scalars = view.store.ask(queries.scalars_frame, view.folder, None, None, POINTS)
        series = run_summary.series(scalars, "kl", "student")
        return None if series.empty else series

    def caption(self, data: pd.DataFrame) -> str:
        """Return the first and the last value."""
        first, last = data["value"].iloc[0], data["value"].iloc[-1]
        return (
            f"KL(teacher || student) of each step's texts, from {score(first)} to {score(last)} nats per token. These "
            "are texts that it learns from."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the series."""
        return charts.line(data, "KL in nats per token", colours)
