"""The adapter parameters in use, against the budget."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import frames
from dynlora.analysis.run_reading import RunReading
from dynlora.text import number, percent
from dynlora.viz.kit import charts
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class Use:
    """The parameters in use by step, as `RunReading.budget` returns them, and their limit."""

    line: pd.DataFrame
    limit: int | None


class ParameterBudget(Panel[Use]):
    """The adapter parameters in use, and the budget as a line."""

    id = "budget"
    order = 13
    part = "Cost"
    title = "Parameter budget"
    missing = "The budget is not known yet."

    def data(self, view: RunView) -> Use | None:
        """Return the use of the budget; None before the first step."""
        run: RunReading = view.result
        line = run.store.budget(run.folder, run.summary)
        return None if line.empty else Use(line, run.summary["params"].get("budget"))

    def caption(self, data: Use) -> str:
        """Return how much of the budget is in use, and whether it was ever exceeded."""
        return budget(data.line, data.limit)

    def table(self, data: Use) -> pd.DataFrame:
        """Return parameters and share of the budget by step."""
        return data.line

    def figure(self, data: Use, colours: Palette) -> go.Figure:
        """Draw the parameters in use."""
        used = frames.parameters(data.line)
        return charts.line(used, "Adapter parameters in use", colours, limit=data.limit, tick=",")


def budget(line: pd.DataFrame, limit: int | None) -> str:
    """Say how much of the budget is in use, and whether it was ever exceeded."""
    known = line.dropna(subset=["parameters"])
    if known.empty or not limit:
        return "The budget is not known yet."
    now, most = float(known["parameters"].iloc[-1]), float(known["parameters"].max())
    over = "never exceeded" if most <= limit else f"exceeded by {number(int(most - limit))}"
    return f"{number(int(now))} of {number(limit)} parameters in use ({percent(now / limit)}); {over}."
