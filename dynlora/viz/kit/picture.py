"""A figure as every place shows it: with the caption that says what it shows, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go


@dataclass(frozen=True)
class Picture:
    """What a card of a page holds, and what a notebook is given.

    Attributes:
        figure: drawn in the colours of a mode.
        caption: what it shows, computed from its numbers; plain text of an untrusted run.
        table: its numbers.
    """

    figure: go.Figure
    caption: str
    table: pd.DataFrame
