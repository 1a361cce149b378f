"""Accuracy against what a solution costs."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import figures, frames
from dynlora.kinds.decode.points import point_of
from dynlora.viz.kit.panel import Choice, Panel, RunView
from dynlora.viz.kit.text import plural
from dynlora.viz.kit.theme import Palette

PREFILL = {
    "flops": "Reading accepted text (prefill) is not counted here; choose FLOPs with prefill for the whole.",
    "flops_with_prefill": "Reading accepted text (prefill) is counted: with it the target's savings shrink.",
    "seconds": "Seconds of this machine, one problem at a time. What an earlier point computed counts as then.",
}
"""What each cost counts."""


@dataclass(frozen=True)
class Frontier:
    """Results by point, as `frames.by_point` returns them; `known` are those with an accuracy."""

    results: pd.DataFrame
    known: pd.DataFrame
    cost: str
    point: str


class AccuracyAgainstCost(Panel[Frontier]):
    """A point for each way of decoding."""

    id = "frontier"
    order = 4
    title = "Accuracy against cost"
    missing = "The right answers of these problems are not known, so there is no accuracy."
    is_wide = True

    def choice(self, view: RunView) -> Choice | None:
        """Return the costs."""
        return Choice("cost", "Cost", frames.COSTS, "flops", is_row=True)

    def data(self, view: RunView) -> Frontier | None:
        """Return the results of all points."""
        point = point_of(view)
        if point is None:
            return None
        results = frames.by_point(view.result)
        known = results.dropna(subset=["accuracy"])
        cost = view.chosen.get("cost", "flops")
        return None if known.empty else Frontier(results, known, cost if cost in frames.COSTS else "flops", point.key)

    def caption(self, data: Frontier) -> str:
        """Return n, and what the cost counts."""
        problems = plural(int(data.known["problems"].min()), "problem")
        return f"Accuracy with 95 % CI against cost per problem, at least {problems} each. {PREFILL[data.cost]}"

    def table(self, data: Frontier) -> pd.DataFrame:
        """Return the results of all points."""
        return data.results.drop(columns="key")

    def figure(self, data: Frontier, colours: Palette) -> go.Figure:
        """Draw a line for each rule, the writers alone as its ends."""
        return figures.frontier(data.known, data.cost, data.point, colours)
