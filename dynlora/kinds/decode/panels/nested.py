"""How often smaller adapters choose the token of the whole one."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import figures, frames
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.text import percent
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

    def table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the agreement at each rank."""
        return data

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw agreement against rank."""
        return figures.nested(data, colours)
