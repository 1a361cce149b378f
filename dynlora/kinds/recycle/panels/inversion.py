"""The loss of the inversion, and how far the teachers agree."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import run_summary
from dynlora.kinds.recycle.result import POINTS
from dynlora.store import queries
from dynlora.text import percent, score
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class Inverting:
    """Loss and mean agreement by step: columns step and value."""

    loss: pd.DataFrame
    agreement: pd.DataFrame


class Inversion(Panel[Inverting]):
    """Loss of the inversion over its steps."""

    id = "inversion"
    order = 2
    title = "Inversion"
    about = "Synthetic inputs that a teacher assigns to its class"
    missing = "No input has been made yet."

    def data(self, view: RunView) -> Inverting | None:
        """Return both series."""
        scalars = view.store.ask(queries.scalars_frame, view.folder, None, None, POINTS)
        both = Inverting(*(run_summary.series(scalars, name, "inversion") for name in ("inversion_loss", "agreement")))
        return None if both.loss.empty else both

    def caption(self, data: Inverting) -> str:
        """Return first and last loss, and the last agreement."""
        loss, agreement = data.loss["value"], data.agreement["value"]
        last = (
            f" Mean agreement with the teachers at the end: {percent(agreement.iloc[-1], 0)}." if len(agreement) else ""
        )
        return (
            f"Inversion loss over {len(loss):,} recorded iterations, from {score(loss.iloc[0])} to "
            f"{score(loss.iloc[-1])}. Each group of classes begins again.{last}"
        )

    def table(self, data: Inverting) -> pd.DataFrame:
        """Return loss and agreement by step."""
        loss, agreement = data.loss.rename(columns={"value": "loss"}), data.agreement
        return loss.merge(agreement.rename(columns={"value": "agreement"}), on="step")

    def figure(self, data: Inverting, colours: Palette) -> go.Figure:
        """Draw loss and agreement."""
        loss, agreement = data.loss, data.agreement
        drawn = theme.figure(colours, 260)
        drawn.add_scatter(
            x=loss["step"],
            y=loss["value"],
            mode="lines",
            name="Loss",
            line={"color": colours.second, "width": 1.6},
            hovertemplate="step %{x}: loss %{y:.3f}<extra></extra>",
        )
        drawn.add_scatter(
            x=agreement["step"],
            y=agreement["value"],
            mode="lines",
            name="Agreement",
            yaxis="y2",
            line={"color": colours.accent, "width": 1.6, "dash": "dash"},
            hovertemplate="step %{x}: agreement %{y:.0%}<extra></extra>",
        )
        drawn.update_xaxes(title_text="Step")
        right = {
            **theme.axis(colours),
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.05],
            "tickformat": ".0%",
            "showgrid": False,
            "title": theme.axis_title("Agreement", colours),
            "dtick": 0.25,
        }
        drawn.update_layout(showlegend=True, yaxis2=right, margin={"r": 56})
        drawn.update_yaxes(title_text="Loss", selector={"anchor": "x"}, rangemode="tozero")
        return drawn
