"""What a figure draws, for tests that look at its values."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go


def traces_of(figure: go.Figure) -> list[Any]:
    """Return the traces of a figure: plotly itself gives `data` no type."""
    data: Any = figure.data
    return list(data)


def layout_of(figure: go.Figure) -> Any:
    """Return the layout of a figure: plotly itself gives `layout` no type."""
    return figure.layout
