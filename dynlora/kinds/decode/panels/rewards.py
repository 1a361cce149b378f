"""The reward of every judged step of a point."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import figures, frames
from dynlora.kinds.decode.points import point_of
from dynlora.kinds.decode.result import Point
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.text import score
from dynlora.viz.kit.theme import Palette


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
        return figures.rewards(data.steps, data.point, colours)
