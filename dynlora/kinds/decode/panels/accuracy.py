"""What decoding reaches: accuracy against cost, whether the reward is one, and what smaller adapters agree on."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import frames
from dynlora.kinds.decode.frames import CONTROL, COSTS, RULES, point_of
from dynlora.kinds.decode.result import DRAFT, TARGET
from dynlora.text import percent, plotly_text, plural
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
