"""Whether a high reward goes with a right answer."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import frames
from dynlora.kinds.decode.frames import point_of
from dynlora.text import percent
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


class Reliability(Panel[pd.DataFrame]):
    """Right final answers by the reward of kept steps."""

    id = "reliability"
    order = 5
    title = "Is the reward a reward?"
    about = "Right final answers by the reward of kept steps"
    missing = "No accepted step was judged at this point."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return the bins of the chosen point, as `frames.reliability` does."""
        point = point_of(view)
        frame = None if point is None else frames.reliability(view.result, point.key)
        return None if frame is None or frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return the fraction of right answers in the lowest and the highest bin."""
        first, last = data.iloc[0], data.iloc[-1]
        if len(data) < 2:
            return f"All {int(first['steps']):,} kept steps have rewards of one bin, so they cannot be compared."
        return (
            f"Fraction of right final answers by the reward of kept steps: {percent(first['right'], 0)} in the lowest "
            f"bin ({int(first['solutions']):,} solutions), {percent(last['right'], 0)} in the highest "
            f"({int(last['solutions']):,}). A flat line means that the reward says nothing about the answer."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the fraction of right answers by bin."""
        drawn = theme.figure(colours, 280)
        middle = (data["from"] + data["to"]) / 2
        drawn.add_bar(
            x=middle,
            y=data["right"],
            width=0.9 * (data["to"] - data["from"]),
            marker={"color": theme.faded(colours.accent, 0.75)},
            text=[f"{int(n):,}" for n in data["solutions"]],
            textposition="inside",
            insidetextanchor="start",
            textfont={"color": colours.panel},
            error_y=theme.interval(data["right"], data, colours.text),
            customdata=data[["from", "to", "solutions", "steps"]],
            hovertemplate="Reward %{customdata[0]:.2f} to %{customdata[1]:.2f}<br>right: %{y:.1%} of "
            "%{customdata[2]:,} solutions (%{customdata[3]:,} steps)<extra></extra>",
        )
        drawn.update_xaxes(title_text="Reward of a kept step")
        drawn.update_yaxes(title_text="Final answer right", tickformat=".0%", range=[0, 1.05])
        return drawn
