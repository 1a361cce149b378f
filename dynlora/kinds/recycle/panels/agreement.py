"""How far the teachers assign synthetic inputs to their classes."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.recycle import result
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
        frame = result.agreement_frame(view.result, view.folder)
        return frame if frame["agreement"].notna().any() else None

    def caption(self, data: pd.DataFrame) -> str:
        """Return the classes whose inputs their teacher does not see in them."""
        known = data.dropna(subset=["agreement"])
        low = known[known["agreement"] < result.LOW]
        if low.empty:
            return f"The teachers assign at least {percent(known['agreement'].min(), 0)} of the inputs to their class."
        names = listed([one_line(name, 40) for name in low["class"]])
        verb, whose = ("is", "Its") if len(low) == 1 else ("are", "Their")
        return (
            f"{len(low):,} of {len(known):,} classes {verb} below {percent(result.LOW, 0)}: {names}. {whose} inputs "
            "teach little; more iterations may help."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw a bar for each class, in the colour of its teacher: two teachers may have classes of one name."""
        known = data.dropna(subset=["agreement"]).reset_index(drop=True)
        drawn = theme.figure(colours, 280)
        names = [plotly_text(name, 30) for name in known["class"]]
        looks = theme.styles(sorted(set(data["teacher"])))
        for teacher, part in known.groupby("teacher", sort=True):
            drawn.add_bar(
                x=part.index.tolist(),
                y=part["agreement"],
                name=plotly_text(teacher, 40),
                marker={"color": looks[str(teacher)][0]},
                customdata=[names[number] for number in part.index],
                hovertemplate="%{customdata}: %{y:.0%}<extra>%{fullData.name}</extra>",
            )
        drawn.update_layout(barmode="overlay", showlegend=1 < len(looks) <= result.MOST_NAMED)
        drawn.add_hline(y=result.LOW, line={"color": colours.muted, "width": 1, "dash": "dot"})
        drawn.update_yaxes(title_text="Agreement", tickformat=".0%", range=[0, 1.05])
        drawn.update_xaxes(
            tickmode="array",
            tickvals=list(range(len(known))),
            ticktext=names,
            tickangle=-45,
            showticklabels=len(known) <= result.MOST_NAMED,
            title_text="" if len(known) <= result.MOST_NAMED else "Classes, lowest first",
        )
        return drawn
