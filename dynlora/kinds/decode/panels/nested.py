"""How often smaller adapters choose the token of the whole one."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import frames
from dynlora.text import percent
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class NestedRanks(Panel[pd.DataFrame]):
    """Agreement of the target's adapter, cut to a rank, with the whole one."""

    id = "nested"
    order = 6
    title = "Agreement by rank"
    about = "How much of the target's adapter is in its first components"
    missing = "Not measured in this decode. Add --nested-ranks to `dynlora rsd` to measure it."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns rank, share, agreement."""
        frame = frames.nested_frame(view.result)
        return None if frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return the agreement at the lowest rank."""
        ranked = data[data["rank"] > 0]
        first = (ranked if len(ranked) else data).iloc[0]
        return (
            f"At rank {int(first['rank'])} the adapter chooses the whole adapter's token in "
            f"{percent(first['agreement'])} of cases. This is a diagnosis: a smaller adapter on all layers makes no "
            "token cheaper."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw agreement against rank."""
        drawn = theme.figure(colours, 240)
        drawn.add_scatter(
            x=data["rank"],
            y=data["agreement"],
            mode="lines+markers",
            line={"color": colours.accent},
            customdata=data[["share"]],
            hovertemplate="Rank %{x}: same token in %{y:.1%}<br>%{customdata[0]:.0%} of the parameters<extra></extra>",
        )
        drawn.update_xaxes(title_text="Rank of the adapter")
        drawn.update_yaxes(title_text="Same token as the whole adapter", tickformat=".0%")
        return drawn
