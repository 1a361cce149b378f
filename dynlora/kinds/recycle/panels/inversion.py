"""The loss of the inversion, and how far the teachers agree."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.recycle import figures
from dynlora.kinds.recycle.frames import POINTS
from dynlora.store import queries
from dynlora.viz.kit import run_summary
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.text import percent, score
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
        return figures.inversion(data.loss, data.agreement, colours)
