"""Accuracy against what a solution costs."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import frames
from dynlora.kinds.decode.frames import CONTROL, COSTS, RULES, point_of
from dynlora.kinds.decode.result import DRAFT, TARGET
from dynlora.text import plotly_text, plural
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Choice, Panel, RunView
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
        table, cost, chosen = data.known, data.cost, data.point
        drawn = theme.figure(colours, 340)
        looks = {
            CONTROL: ("diamond", colours.muted, "dot"),
            DRAFT: ("triangle-down", colours.accent, "solid"),
            TARGET: ("triangle-up", colours.second, "solid"),
        }
        for rule, part in table.sort_values(cost).groupby("accept", sort=False):
            symbol, colour, dash = looks.get(str(rule), ("circle", colours.accent, "solid"))
            drawn.add_scatter(
                x=part[cost],
                y=part["accuracy"],
                name=plotly_text(RULES.get(str(rule), rule)),
                mode="lines+markers" if len(part) > 1 else "markers",
                line={"color": colour, "dash": dash, "width": 1.6},
                marker={"symbol": symbol, "color": colour, "size": 9 if len(part) > 1 else 12},
                error_y=theme.interval(part["accuracy"], part, theme.faded(colour, 0.45)),
                customdata=[[plotly_text(row[0]), row[1]] for row in part[["point", "problems"]].values.tolist()],
                hovertemplate="%{customdata[0]}: accuracy %{y:.3f}<br>%{x:.3s} per problem, %{customdata[1]} problems"
                "<extra></extra>",
            )
        ringed = table[table["key"] == chosen]
        drawn.add_scatter(
            x=ringed[cost],
            y=ringed["accuracy"],
            mode="markers",
            showlegend=False,
            hoverinfo="skip",
            marker={"symbol": "circle-open", "size": 18, "color": colours.text, "line": {"width": 1.6}},
        )
        drawn.update_xaxes(title_text=f"{COSTS[cost]} per problem", rangemode="tozero")
        drawn.update_yaxes(title_text="Accuracy", tickformat=".0%")
        drawn.update_layout(showlegend=True)
        return drawn
