"""A row of dots for each class or input group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_text, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette


def score_dots(scores: pd.DataFrame, by: str, columns: Sequence[str], title: str, colours: Palette) -> go.Figure:
    """Draw a row of dots for each class or group.

    Args:
        scores: one row per class or group.
        by: the column with its name.
        columns: the scores to draw.
        title: of the axis, with its unit.
        colours: of the mode.
    """
    drawn = theme.figure(colours, int(np.clip(110 + 30 * len(scores), 200, 760)), left=90)
    rows = list(range(len(scores)))
    for column, (colour, symbol, _) in theme.contrasting(list(columns)).items():
        drawn.add_scatter(
            x=scores[column], y=rows, mode="markers", name=plotly_text(column, 40),
            marker={"color": colour, "symbol": symbol, "size": 10},
            hovertemplate=f"%{{y}}<br>{plotly_text(column, 40)} %{{x:.4f}}<extra></extra>",
        )  # fmt: skip
    drawn.update_layout(showlegend=len(columns) > 1)
    drawn.update_xaxes(title_text=plotly_text(sentence_case(title)))
    names = [plotly_text(name, 22) for name in scores[by]]
    drawn.update_yaxes(tickmode="array", tickvals=rows, ticktext=names, range=[len(rows) - 0.5, -0.5])
    return drawn
