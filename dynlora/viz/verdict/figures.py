"""The verdict as a picture: each configuration's difference from the baseline, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dynlora.analysis.verdict import Contest, Verdict
from dynlora.text import plotly_lines, plotly_text, sentence_case, signed
from dynlora.viz.kit import run_colours, theme
from dynlora.viz.kit.run_colours import short_label
from dynlora.viz.kit.theme import Palette

ROW = 34
"""Pixels of a configuration."""

TITLE = 28
"""Characters of a line of the axis's title: on a narrow screen the axis is no wider."""


def drawable(result: Verdict) -> list[Contest]:
    """Return the contests that can share an axis: those in the number that decides, the greatest gain first."""
    decisive = result.decisive
    if decisive is None or decisive.side is None:
        return []
    return [one for one in result.contests if one.side is not None and one.side.key == decisive.side.key]


def differences(result: Verdict, colours: Palette) -> go.Figure:
    """Draw the difference of each configuration from the baseline, which is the line at zero.

    Args:
        result: a verdict with at least one contest that `drawable` returns.
        colours: of the mode.
    """
    contests = drawable(result)
    drawn = theme.figure(colours, 122 + ROW * len(contests), left=80)
    drawn.update_layout(margin={"t": 26})
    styles = run_colours.styles({group.oldest: group.method for group in result.groups})
    drawn.add_vline(x=0, line={"color": colours.muted, "width": 1.2, "dash": "dot"})
    for row, contest in enumerate(contests):
        _add_row(drawn, row, contest, styles[contest.group.oldest])
    _scale(drawn, contests)
    drawn.add_annotation(
        x=0,
        y=1,
        yref="paper",
        yanchor="bottom",
        showarrow=False,
        font={"size": 11, "color": colours.muted},
        text=plotly_text(short_label(result.baseline.label), 30),
    )
    return drawn


def _add_row(drawn: go.Figure, row: int, contest: Contest, style: tuple[str, str, str]) -> None:
    difference, side = contest.difference, contest.side
    if difference is None or side is None:
        return
    (colour, symbol, _), mean = style, difference.mean
    low, high = (signed(value, side.digits) for value in (difference.low, difference.high))
    drawn.add_scatter(
        x=[mean],
        y=[row],
        mode="markers+text",
        name=plotly_text(contest.group.title, 80),
        text=[signed(mean, side.digits)],
        textposition="top center",
        textfont={"size": 12},
        marker={"color": colour, "size": 12, "symbol": symbol},
        cliponaxis=False,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [difference.high - mean],
            "arrayminus": [mean - difference.low],
            "color": colour,
            "thickness": 2,
            "width": 5,
        },
        hovertemplate=f"%{{fullData.name}}<br>{signed(mean, side.digits)} {contest.unit}, 95 % CI {low} to {high}"
        f"<br>{difference.seeds} common seeds<extra></extra>",
    )


def _scale(drawn: go.Figure, contests: Sequence[Contest]) -> None:
    """Name the rows, title the axis, and keep zero in sight."""
    ends = [end for one in contests if (known := one.difference) is not None for end in (known.low, known.high)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    space = 0.08 * (high - low or 1.0)
    side = contests[0].side
    drawn.update_xaxes(
        title_text=plotly_lines(sentence_case("" if side is None else side.title), TITLE),
        nticks=7,
        range=[low - space, high + space],
    )
    names = [plotly_lines(short_label(one.group.label, 44), 22, 44) for one in contests]
    drawn.update_yaxes(
        tickmode="array",
        tickvals=list(np.arange(len(contests))),
        ticktext=names,
        range=[len(contests) - 0.4, -0.75],
        showgrid=False,
    )
