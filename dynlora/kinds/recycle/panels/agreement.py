"""How far the teachers assign synthetic inputs to their classes."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.recycle import text
from dynlora.text import listed, one_line, percent, plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class Agreement(Panel[pd.DataFrame]):
    """Last agreement of each class, the lowest first."""

    id = "agreement"
    order = 3
    title = "Teacher agreement by class"
    missing = "No class has been inverted yet."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns class, teacher, agreement."""
        frame = text.agreement_frame(view.result, view.folder)
        return frame if frame["agreement"].notna().any() else None

    def caption(self, data: pd.DataFrame) -> str:
        """Return the classes whose inputs their teacher does not see in them."""
        known = data.dropna(subset=["agreement"])
        low = known[known["agreement"] < text.LOW]
        if low.empty:
            return f"The teachers assign at least {percent(known['agreement'].min(), 0)} of the inputs to their class."
        names = listed([one_line(name, 40) for name in low["class"]])
        return (
            f"{len(low):,} of {len(known):,} classes are below {percent(text.LOW, 0)}: {names}. Their inputs "
            "teach little; more iterations may help."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw a bar for each class."""
        known = data.dropna(subset=["agreement"])
        drawn = theme.figure(colours, 260)
        names = [plotly_text(name, 30) for name in known["class"]]
        drawn.add_bar(
            x=list(range(len(known))),
            y=known["agreement"],
            marker={"color": colours.accent},
            customdata=[
                [name, plotly_text(teacher, 40)] for name, teacher in zip(names, known["teacher"], strict=True)
            ],
            hovertemplate="%{customdata[0]} (%{customdata[1]}): %{y:.0%}<extra></extra>",
        )
        drawn.add_hline(y=text.LOW, line={"color": colours.muted, "width": 1, "dash": "dot"})
        drawn.update_yaxes(title_text="Agreement", tickformat=".0%", range=[0, 1.05])
        drawn.update_xaxes(
            tickmode="array",
            tickvals=list(range(len(known))),
            ticktext=names,
            tickangle=-45,
            showticklabels=len(known) <= text.MOST_NAMED,
            title_text="" if len(known) <= text.MOST_NAMED else "Classes, lowest first",
        )
        return drawn
