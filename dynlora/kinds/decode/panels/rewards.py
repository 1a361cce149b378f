"""The reward of every judged step of a point."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import frames
from dynlora.kinds.decode.frames import point_of
from dynlora.kinds.decode.result import Point
from dynlora.text import plotly_text, score
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette

STEP = ["problem", "step", "text"]
"""What a pointer shows of a judged step."""


@dataclass(frozen=True)
class Judged:
    """The judged steps of a point, as `frames.steps_frame` returns them."""

    point: Point
    steps: pd.DataFrame


class Rewards(Panel[Judged]):
    """Reward by step, accepted and rejected."""

    id = "rewards"
    order = 2
    title = "Reward by step"
    missing = "No step was judged at this point."

    def data(self, view: RunView) -> Judged | None:
        """Return the judged steps of the chosen point."""
        point = point_of(view)
        judged = None if point is None else Judged(point, frames.steps_frame(view.result, point.key))
        return None if judged is None or judged.steps.empty else judged

    def caption(self, data: Judged) -> str:
        """Return how many steps were accepted, and the median reward."""
        accepted = int(data.steps["accepted"].sum())
        rule = f" at {data.point.accept} {data.point.value:g}" if data.point.value is not None else ""
        return (
            f"{accepted:,} of {len(data.steps):,} judged steps were accepted{rule}. Median reward "
            f"{score(data.steps['reward'].median())}. Circles: accepted; crosses: rejected."
        )

    def table(self, data: Judged) -> pd.DataFrame:
        """Return the steps."""
        return data.steps

    def figure(self, data: Judged, colours: Palette) -> go.Figure:
        """Draw a point for each step."""
        frame, point = data.steps, data.point
        drawn = theme.figure(colours, 280)
        looks = {True: ("Accepted", "circle", colours.accent), False: ("Rejected", "x", colours.second)}
        for accepted, (name, symbol, colour) in looks.items():
            part = frame[frame["accepted"] == accepted]
            drawn.add_scatter(
                x=part["step"] + _jitter(part["problem"]),
                y=part["reward"],
                mode="markers",
                name=name,
                marker={"symbol": symbol, "color": colour, "size": 7, "opacity": 0.75},
                customdata=[[*row[:2], plotly_text(row[2], 80)] for row in part[STEP].values.tolist()],
                hovertemplate="Problem %{customdata[0]}, step %{customdata[1]}<br>reward %{y:.3f}<br>%{customdata[2]}"
                f"<extra>{name}</extra>",
            )
        if point.accept == "threshold" and point.value is not None and abs(point.value) < 1e6:
            drawn.add_hline(y=point.value, line={"color": colours.muted, "width": 1.4, "dash": "dash"})
        drawn.update_xaxes(title_text="Step of the solution", dtick=1 if frame["step"].max() <= 20 else None)
        drawn.update_yaxes(title_text="Reward")
        drawn.update_layout(showlegend=True)
        return drawn


def _jitter(problems: pd.Series) -> pd.Series:
    """Return a small shift per problem, so that points of one step do not hide each other; it follows from the number.

    The golden ratio spreads any run of numbers evenly.
    """
    return (problems * 0.618034 % 1.0 - 0.5) * 0.5
