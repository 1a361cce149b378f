"""How far the teachers assign synthetic inputs to their classes."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.recycle import figures, frames
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.text import listed, one_line, percent
from dynlora.viz.kit.theme import Palette


class Agreement(Panel[pd.DataFrame]):
    """Last agreement of each class, the lowest first."""

    id = "agreement"
    order = 3
    title = "Teacher agreement by class"
    missing = "No class has been inverted yet."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns class, teacher, agreement."""
        frame = frames.agreement_frame(view.result, view.folder)
        return frame if frame["agreement"].notna().any() else None

    def caption(self, data: pd.DataFrame) -> str:
        """Return the classes whose inputs their teacher does not see in them."""
        known = data.dropna(subset=["agreement"])
        low = known[known["agreement"] < frames.LOW]
        if low.empty:
            return f"The teachers assign at least {percent(known['agreement'].min(), 0)} of the inputs to their class."
        names = listed([one_line(name, 40) for name in low["class"]])
        return (
            f"{len(low):,} of {len(known):,} classes are below {percent(frames.LOW, 0)}: {names}. Their inputs "
            "teach little; more iterations may help."
        )

    def table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the agreement of each class."""
        return data

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw a bar for each class."""
        return figures.agreement(data, colours)
