"""What a run forgets: adapter against base on general text, by evaluation."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.retention import Retention, retention_conclusion
from dynlora.store.meta import section, whole
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import HEIGHT, titled
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette

WRITER = {"adapter": "loss", "base model": "base_loss"}
LABELLER = {"mean cosine of states": "cosine", "same nearest sentence": "agreement"}
"""The lines of the figure, and the numbers they show."""


class RetentionOverTime(Panel[list[Retention]]):
    """The loss of adapter and base on public text, or how far hidden states are those of the base."""

    id = "retention"
    order = 19
    part = "Training"
    title = "Retention"
    about = "Adapter against base model on public text that no task is about"
    missing = "Not measured yet. Runs with log.retention measure it at evaluations."

    def applies(self, view: RunView) -> bool:
        """Say whether the run measures it."""
        return bool(whole(section(view.result.summary.get("config"), "log").get("retention")))

    def data(self, view: RunView) -> list[Retention] | None:
        """Return what was measured at each evaluation; None before the first."""
        return view.result.retention or None

    def caption(self, data: list[Retention]) -> str:
        """Return what the last evaluation found, with its interval."""
        return f"{retention_conclusion(data[-1])} Step {data[-1].step:,}."

    def table(self, data: list[Retention]) -> pd.DataFrame:
        """Return a row for each evaluation."""
        return pd.DataFrame([vars(one) for one in data]).dropna(axis=1, how="all")

    def figure(self, data: list[Retention], colours: Palette) -> go.Figure:
        """Draw the losses of adapter and base, or cosine and agreement."""
        is_writer, table = data[-1].rise is not None, self.table(data)
        lines = WRITER if is_writer else LABELLER
        drawn, style = theme.figure(colours, HEIGHT), theme.contrasting(list(lines))
        for name, column in lines.items():
            colour, symbol, dash = style[name]
            drawn.add_scatter(
                x=table["step"],
                y=table[column] if column in table else [None] * len(table),
                mode="lines+markers",
                name=name.capitalize(),
                line={"color": colour, "width": 1.8, "dash": dash},
                marker={"size": 7, "symbol": symbol},
                hovertemplate="step %{x}<br>%{fullData.name} %{y:.4f}<extra></extra>",
            )
        drawn.update_layout(showlegend=True)
        return titled(drawn, "loss (nats per token)" if is_writer else "score")
