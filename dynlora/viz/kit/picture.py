"""A figure as every place shows it: with the caption that says what it shows, its numbers, and what a click does."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Picks:
    """What a click on a point of a chart chooses.

    Attributes:
        name: in the address.
        values: what can be chosen; the last of a point's `customdata` is a place among them, so that no text of a run
            is in the figure but what is escaped.
    """

    name: str
    values: Sequence[str]
