"""Figures of a check before a run starts: parameters by kind of module, and the schedule as a timeline."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

LANES = ("Learning rate", "Rank", "Evaluation", "Checkpoint")
"""Lanes of the timeline, from top to bottom; what happens belongs to the lane its words begin with."""

_HOVER = "%{customdata}<extra></extra>"


def kinds_bars(kinds: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the adapter parameters of each kind of module, and the room to grow behind them.

    Args:
        kinds: rows kind, modules, d_in, d_out, active, room, as `costs.kinds_frame` returns.
        colours: of the mode.
    """
    figure = theme.figure(colours, max(150, 66 + 26 * len(kinds)))
    names = [plotly_text(name) for name in kinds["kind"]]
    words = [
        f"{name}: {row.modules} modules of {row.d_in:,} to {row.d_out:,}<br>{row.active:,} active, space for "
        f"{row.room:,} more"
        for name, row in zip(names, kinds.itertuples(), strict=True)
    ]
    for column, label, colour in (
        ("active", "Active", colours.accent),
        ("room", "Space to grow", theme.faded(colours.accent, 0.18)),
    ):
        if bool(kinds[column].sum()):
            figure.add_bar(
                x=kinds[column],
                y=names,
                orientation="h",
                name=label,
                marker={"color": colour, "line": {"width": 0}},
                customdata=words,
                hovertemplate=_HOVER,
            )
    figure.update_layout(
        barmode="stack",
        bargap=0.35,
        showlegend=len(list(figure.select_traces())) > 1,
        margin={"t": 30},
        legend_traceorder="normal",
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True)
    figure.update_xaxes(title_text="Adapter parameters", rangemode="tozero")
    return figure


def schedule_lanes(timeline: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw when things happen: spans as bars, single steps as ticks, a lane for each kind.

    Args:
        timeline: rows what, start, end, in steps, as `costs.timeline` returns.
        colours: of the mode.
    """
    lanes = [lane for lane in LANES if timeline["what"].str.startswith(lane).any()]
    figure = theme.figure(colours, 66 + 34 * len(lanes))
    fills = {
        "Learning rate rises": theme.faded(colours.second, 0.75),
        "Ranks fixed": theme.faded(colours.accent, 0.18),
    }
    ticks = {"Rank reallocation": colours.accent, "Evaluation": colours.text, "Checkpoint": colours.muted}
    for what, rows in timeline.groupby("what", sort=False):
        lane = next(lane for lane in lanes if str(what).startswith(lane))
        if what in ticks:
            figure.add_scatter(
                x=rows["start"],
                y=[lane] * len(rows),
                mode="markers",
                name=str(what),
                hovertemplate=_HOVER,
                customdata=[f"{what}, step {step:,}" for step in rows["start"]],
                marker={"symbol": "line-ns", "size": 16, "line": {"width": 2, "color": ticks[str(what)]}},
            )
        else:
            figure.add_bar(
                x=rows["end"] - rows["start"],
                base=rows["start"],
                y=[lane] * len(rows),
                orientation="h",
                width=0.42,
                name=str(what),
                marker={"color": fills.get(str(what), theme.faded(colours.second, 0.28))},
                customdata=[f"{what}, steps {row.start:,} to {row.end:,}" for row in rows.itertuples()],
                hovertemplate=_HOVER,
            )
    figure.update_layout(barmode="overlay", hovermode="closest")
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=lanes[::-1],
        range=[-0.6, len(lanes) - 0.4],
        showgrid=False,
        automargin=True,
    )
    figure.update_xaxes(title_text="Step", range=[-0.015 * max(timeline["end"]), 1.015 * max(timeline["end"])])
    return figure
