"""Whether the order of importance stays the same from one reallocation to the next."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import capacity_frames
from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.theme import Palette


class ImportanceStability(CapacityPanel[pd.DataFrame]):
    """Spearman correlation of importance between each reallocation and the one before."""

    id = "stability"
    card = "steady"
    order = 6
    title = "Importance stability between reallocations"
    missing = "There are fewer than two reallocations to compare."
    is_wide = True

    def applies(self, view: RunView) -> bool:
        """Say whether rank moved more than once."""
        return super().applies(view) and len(view.result.event_steps) > 1

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns step and value; None before the second reallocation."""
        run: RunReading = view.result
        importance = run.whole("importance")
        if not importance.empty:
            importance = importance.iloc[run.selected["position"]]
        agreement = capacity_frames.steadiness(importance, run.event_steps)
        return None if agreement.empty else agreement

    def caption(self, data: pd.DataFrame) -> str:
        """Say how far the order of importance can be trusted from one reallocation to the next."""
        middle = float(data["value"].median())
        verdict = "stable" if middle >= 0.8 else "fairly stable" if middle >= 0.5 else "mostly noise"
        return (
            f"The order of importance from one reallocation to the next is {verdict}: median Spearman correlation "
            f"{middle:.2f} over {len(data)} pairs, minimum {data['value'].min():.2f}."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the correlation at each reallocation, from -1 to 1."""
        drawn = theme.figure(colours, 230)
        drawn.add_scatter(
            x=data["step"],
            y=data["value"],
            mode="lines+markers",
            line={"color": colours.accent, "width": 1.6},
            marker={"size": 6},
            hovertemplate="step %{x}<br>Spearman %{y:.2f} with the previous reallocation<extra></extra>",
        )
        drawn.add_hline(y=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
        drawn.update_xaxes(title_text="Step")
        low = float(data["value"].min())
        drawn.update_yaxes(title_text="Spearman correlation", range=[min(-0.05, low - 0.1), 1.05])
        return drawn
