"""What reacting to the input gains: a gate against its own mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.gate_effect import Reaction, reaction_conclusion
from dynlora.analysis.run_summary import loss_unit
from dynlora.text import plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette

ALL = "all examples"


@dataclass(frozen=True)
class Reactions:
    """What reacting gains over all examples and in each group, and the unit of the loss."""

    parts: list[Reaction]
    unit: str


class GateReaction(Panel[Reactions]):
    """The held-out loss with each gate at its mean, minus the loss with the gates."""

    id = "reaction"
    order = 20
    part = "Inputs"
    title = "Gain from reacting to the input"
    about = "Loss with each gate at its mean, minus the loss with the gates"
    missing = "Not recorded in this run. Newer runs with gates measure it at their end."
    is_wide = True

    def applies(self, view: RunView) -> bool:
        """Say whether the run has gates."""
        return "gate" in view.result.signals

    def data(self, view: RunView) -> Reactions | None:
        """Return what was recorded; None before the end of the run."""
        parts = view.result.reactions
        return Reactions(parts, loss_unit(view.result.summary)) if parts else None

    def caption(self, data: Reactions) -> str:
        """Return what reacting gains over all examples, with its interval."""
        return reaction_conclusion(data.parts[0], data.unit)

    def table(self, data: Reactions) -> pd.DataFrame:
        """Return a row for all examples and for each group."""
        rows = [(one.group or ALL, one.n, one.lowers_by, one.low, one.high) for one in data.parts]
        return pd.DataFrame(rows, columns=["group", "examples", "lowers the loss by", "low", "high"])

    def figure(self, data: Reactions, colours: Palette) -> go.Figure:
        """Draw a dot with its interval for all examples and for each group; right of zero the gates help."""
        table = self.table(data)
        rows = list(range(len(table)))
        drawn = theme.figure(colours, int(np.clip(130 + 30 * len(table), 200, 760)), left=90)
        ends = table[["low", "high"]].astype(float)
        drawn.add_scatter(
            x=table["lowers the loss by"],
            y=rows,
            mode="markers",
            marker={"color": [colours.accent, *[colours.muted] * (len(table) - 1)], "size": 10},
            error_x=theme.interval(table["lowers the loss by"], ends, colours.muted),
            hovertemplate="%{y}<br>lowers the loss by %{x:.4f}<extra></extra>",
        )
        drawn.add_vline(x=0, line={"color": colours.muted, "width": 1})
        drawn.update_xaxes(title_text=plotly_text(f"Lowers the loss by ({data.unit})"))
        names = [plotly_text(name, 22) for name in table["group"]]
        drawn.update_yaxes(tickmode="array", tickvals=rows, ticktext=names, range=[len(rows) - 0.5, -0.5])
        return drawn
