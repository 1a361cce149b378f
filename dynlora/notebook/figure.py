"""A figure of a page in a notebook: plotly's own, with the caption and the numbers that the page shows with it."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dynlora.errors import ConfigError
from dynlora.text import listed
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Picture
from dynlora.viz.kit.theme import Palette

THEMES = ("light", "dark")


class PageFigure(go.Figure):
    """A plotly figure: it shows itself at the end of a cell, and takes every change that plotly knows.

    Attributes:
        caption: the sentence under it on the page, computed from its numbers.
        table: its numbers.

    Examples:
        >>> figure = dynlora.open_run("sample_runs/20261125-133850-b965a50f").plot.flow()
        >>> figure = figure.update_layout(title="Where rank went")
        >>> figure.caption[-1], len(figure.table) > 0
        ('.', True)
    """

    caption: str = ""
    table: pd.DataFrame = pd.DataFrame()


def page_figure(picture: Picture, colours: Palette) -> PageFigure:
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


MOST_NAMED = 12
"""Options that a message names."""


def within(name: str, value: int | None, low: int, high: int, usual: int) -> int:
    """Return a step that lies between two others, the usual one where none is given.

    Args:
        name: of the argument.
        value: of it.
        low: first step that it may be.
        high: last step that it may be.
        usual: taken for None.

    Raises:
        ConfigError: when it is no such step.
    """
    if value is None:
        return usual
    try:
        step = operator.index(value)
    except TypeError:
        step = low - 1
    if isinstance(value, bool) or not low <= step <= high:
        raise ConfigError(f"{name}={value!r}: must be a whole number, a step from {low} to {high}")
    return step


def one_of(name: str, value: str, options: Iterable[str]) -> str:
    """Return a value that is among some options.

    Args:
        name: of the argument.
        value: of it.
        options: that it may be.

    Raises:
        ConfigError: when it is none of them.
    """
    known = list(options)
    if value in known:
        return value
    near = difflib.get_close_matches(str(value), known, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"must be one of {listed(known, MOST_NAMED)}"
    raise ConfigError(f"{name}={value!r}: {remedy}")
