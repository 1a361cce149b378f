"""The figures of a decode: rewards over steps, tokens by problem, accuracy against cost, reliability, nested rank."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode.frames import CONTROL, COSTS, RULES
from dynlora.kinds.decode.result import DRAFT, TARGET, Point
from dynlora.viz.kit import theme
from dynlora.viz.kit.text import plotly_text
from dynlora.viz.kit.theme import Palette

STEP = ["problem", "step", "text"]
"""What a pointer shows of a judged step."""

PARTS = {"target": "Target", "draft discarded": "Draft, discarded", "draft kept": "Draft, kept"}


def role_colours(colours: Palette) -> dict[str, str]:
    """Return the colour of each writer; a discarded step of the draft is muted."""
    return {"draft kept": colours.accent, "draft discarded": colours.muted, "target": colours.second}


def rewards(frame: pd.DataFrame, point: Point, colours: Palette) -> go.Figure:
    """Draw the reward of every judged step: accepted and rejected differ in shape and colour."""
    drawn = theme.figure(colours, 280)
    looks = {True: ("Accepted", "circle", colours.accent), False: ("Rejected", "x", colours.second)}
    for accepted, (name, symbol, colour) in looks.items():
        part = frame[frame["accepted"] == accepted]
        drawn.add_scatter(
            x=part["step"] + _jitter(part["problem"]), y=part["reward"], mode="markers", name=name,
            marker={"symbol": symbol, "color": colour, "size": 7, "opacity": 0.75},
            customdata=[[*row[:2], plotly_text(row[2], 80)] for row in part[STEP].values.tolist()],
            hovertemplate="Problem %{customdata[0]}, step %{customdata[1]}<br>reward %{y:.3f}<br>%{customdata[2]}"
            f"<extra>{name}</extra>",
        )  # fmt: skip
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


def tokens(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the decoded tokens of each problem by who wrote them."""
    drawn = theme.figure(colours, 280)
    names = [f"{problem}" for problem in frame["problem"]]
    for part, colour in role_colours(colours).items():
        drawn.add_bar(
            x=names, y=frame[part], name=PARTS[part], marker={"color": colour},
            hovertemplate="Problem %{x}: %{y} tokens<extra>" + PARTS[part] + "</extra>",
        )  # fmt: skip
    drawn.update_xaxes(title_text="Problem, most tokens of the target first", type="category", nticks=12)
    drawn.update_yaxes(title_text="Tokens decoded")
    drawn.update_layout(barmode="stack", showlegend=True, bargap=0.15)
    return drawn


def frontier(table: pd.DataFrame, cost: str, chosen: str, colours: Palette) -> go.Figure:
    """Draw accuracy against cost: one line per rule, the writers alone as ends, intervals as bars.

    Args:
        table: as `frames.by_point` returns it.
        cost: a key of `frames.COSTS`.
        chosen: key of the point that is looked at; it is ringed.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 340)
    looks = {CONTROL: ("diamond", colours.muted, "dot"), DRAFT: ("triangle-down", colours.accent, "solid"),
             TARGET: ("triangle-up", colours.second, "solid")}  # fmt: skip
    for rule, part in table.sort_values(cost).groupby("accept", sort=False):
        symbol, colour, dash = looks.get(str(rule), ("circle", colours.accent, "solid"))
        drawn.add_scatter(
            x=part[cost], y=part["accuracy"], name=plotly_text(RULES.get(str(rule), rule)),
            mode="lines+markers" if len(part) > 1 else "markers",
            line={"color": colour, "dash": dash, "width": 1.6},
            marker={"symbol": symbol, "color": colour, "size": 9 if len(part) > 1 else 12},
            error_y=_interval(part["accuracy"], part, theme.faded(colour, 0.45)),
            customdata=[[plotly_text(row[0]), row[1]] for row in part[["point", "problems"]].values.tolist()],
            hovertemplate="%{customdata[0]}: accuracy %{y:.3f}<br>%{x:.3s} per problem, %{customdata[1]} problems"
            "<extra></extra>",
        )  # fmt: skip
    ringed = table[table["key"] == chosen]
    drawn.add_scatter(
        x=ringed[cost], y=ringed["accuracy"], mode="markers", showlegend=False, hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 18, "color": colours.text, "line": {"width": 1.6}},
    )  # fmt: skip
    drawn.update_xaxes(title_text=f"{COSTS[cost]} per problem", rangemode="tozero")
    drawn.update_yaxes(title_text="Accuracy", tickformat=".0%")
    drawn.update_layout(showlegend=True)
    return drawn


def _interval(values: pd.Series, table: pd.DataFrame, colour: str) -> dict[str, Any]:
    """Return bars from `low` to `high` of a table around its values."""
    return {
        "type": "data", "symmetric": False, "array": table["high"] - values, "arrayminus": values - table["low"],
        "color": colour, "thickness": 1.2,
    }  # fmt: skip


def reliability(table: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the share of right final answers by bin of the reward, with counts."""
    drawn = theme.figure(colours, 280)
    middle = (table["from"] + table["to"]) / 2
    drawn.add_bar(
        x=middle, y=table["right"], width=0.9 * (table["to"] - table["from"]),
        marker={"color": theme.faded(colours.accent, 0.75)}, text=[f"{int(n):,}" for n in table["solutions"]],
        textposition="inside", insidetextanchor="start", textfont={"color": colours.panel},
        error_y=_interval(table["right"], table, colours.text),
        customdata=table[["from", "to", "solutions", "steps"]],
        hovertemplate="Reward %{customdata[0]:.2f} to %{customdata[1]:.2f}<br>right: %{y:.1%} of %{customdata[2]:,} "
        "solutions (%{customdata[3]:,} steps)<extra></extra>",
    )  # fmt: skip
    drawn.update_xaxes(title_text="Reward of a kept step")
    drawn.update_yaxes(title_text="Final answer right", tickformat=".0%", range=[0, 1.05])
    return drawn


def nested(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the agreement of the adapter cut to a rank with the whole one."""
    drawn = theme.figure(colours, 240)
    drawn.add_scatter(
        x=frame["rank"], y=frame["agreement"], mode="lines+markers", line={"color": colours.accent},
        customdata=frame[["share"]],
        hovertemplate="Rank %{x}: same token in %{y:.1%}<br>%{customdata[0]:.0%} of the parameters<extra></extra>",
    )  # fmt: skip
    drawn.update_xaxes(title_text="Rank of the adapter")
    drawn.update_yaxes(title_text="Same token as the whole adapter", tickformat=".0%")
    return drawn
