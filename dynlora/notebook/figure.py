"""A figure of a page in a notebook: plotly's own, with the caption and the numbers that the page shows with it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dynlora.errors import ConfigError
from dynlora.viz.kit import theme
from dynlora.viz.kit.picture import Picture
from dynlora.viz.kit.theme import Palette

THEMES = ("light", "dark")


class PageFigure(go.Figure):
    """A plotly figure: it shows itself at the end of a cell, and takes every change that plotly knows.

    Attributes:
        caption: the sentence under it on the page, computed from its numbers.
        table: its numbers.
    """

    caption: str = ""
    table: pd.DataFrame = pd.DataFrame()


def shown(picture: Picture, colours: Palette) -> PageFigure:
    """Return a picture of a page as a figure of a notebook.

    On a page the card lies behind the figure. A notebook has no card, and its own background may be dark, so the
    figure brings the card's colour along; nothing else is changed.

    Args:
        picture: of a page.
        colours: that it was drawn in.
    """
    figure = PageFigure(picture.figure)
    figure.update_layout(paper_bgcolor=colours.panel)
    figure.caption, figure.table = picture.caption.strip(), picture.table
    return figure


class Figures(tuple[PageFigure, ...]):
    """Several figures that show themselves one below the other, in Jupyter and in marimo."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return how many there are: the values of each would fill pages."""
        return f"Figures({len(self)} figures)"

    def _ipython_display_(self) -> None:
        """Show each figure; Jupyter calls this."""
        display = import_module("IPython.display").display
        for figure in self:
            display(figure)

    def _display_(self) -> Any:
        """Return all figures in one column; marimo calls this."""
        return import_module("marimo").vstack(list(self))


def palette(name: str) -> Palette:
    """Return the colours of a theme.

    Raises:
        ConfigError: when there is no such theme.
    """
    if name not in THEMES:
        raise ConfigError(f"theme={name!r}: must be 'light' or 'dark'")
    return theme.palette(name)
