"""How many tokens of the synthetic inputs are left, where some are dropped."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.recycle.result import POINTS
from dynlora.store import queries
from dynlora.store.reader import RunReader
from dynlora.viz.kit import charts
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class Tokens:
    """Mean tokens of an input by step (columns step and value), of so many at the start."""

    series: pd.DataFrame
    at_start: int


class TokensKept(Panel[Tokens]):
    """Mean tokens per input over all classes."""

    id = "kept"
    order = 6
    title = "Tokens kept"
    missing = "No token has been dropped yet."

    def applies(self, view: RunView) -> bool:
        """Say whether tokens are dropped in this recycle: the signal is defined at its start."""
        with RunReader(view.folder) as reader:
            return "tokens_kept" in reader.signals()

    def data(self, view: RunView) -> Tokens | None:
        """Return the mean over all classes."""
        frame = view.store.ask(queries.signal_frame, view.folder, "tokens_kept", None, None, POINTS)
        series = pd.DataFrame({"step": frame["step"], "value": frame.drop(columns="step").mean(axis=1)})
        return None if series.empty else Tokens(series, view.result.tokens)

    def caption(self, data: Tokens) -> str:
        """Return how many tokens are left at the end."""
        return (
            f"Mean tokens per input over all classes: {data.series['value'].iloc[-1]:.1f} of {data.at_start} at the "
            "end. Those of least use are dropped after a quarter of the iterations."
        )

    def table(self, data: Tokens) -> pd.DataFrame:
        """Return the series."""
        return data.series

    def figure(self, data: Tokens, colours: Palette) -> go.Figure:
        """Draw the series."""
        return charts.line(data.series, "tokens kept", colours)
