"""A figure of a page in a notebook: plotly's own, with the caption and the numbers that the page shows with it."""

from __future__ import annotations

import difflib
import operator
import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from dynlora.errors import ConfigError
from dynlora.safe_files import write_output
from dynlora.text import listed
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Picture
from dynlora.viz.kit.theme import Palette, digest, policy, script_json

_PLAYER = files("dynlora").joinpath("viz", "ui", "replay")  # by its path: the package of the player imports streamlit
_START = """
const data = JSON.parse(document.getElementById("data").textContent);
show({ data, parentElement: document.body, setTriggerValue: () => {} });
"""
_PAGE = Markup(
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    '<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title><style>{style}</style></head>'
    '<body><script id="data" type="application/json">{data}</script><script type="module">{script}</script></body>'
    "</html>"
)
_FRAME = Markup(
    '<iframe title="{title}" sandbox="allow-scripts allow-downloads" loading="lazy" srcdoc="{page}" '
    'style="width: 100%; height: {height}px; border: 0; border-radius: 6px"></iframe>'
)

LEAST, MOST, ROOM = 9, 44, 300
AROUND_ALL, CONTROLS, MARGIN = 64, 84, 10
"""Pixels as in `replay.js`: a row at least and at most, all rows; beside the rows, buttons, a margin."""


class Replay:
    """Training as a picture that plays: Play, a slider over the steps, and a button that saves the picture as SVG.

    At the end of a cell it shows itself; `html` is the whole page, `write_html` saves it.

    Attributes:
        data: what the player draws, as the page Capacity hands it to the same player.

    Examples:
        >>> replay = dynlora.open_run("sample_runs/20261205-150635-e9038c42").plot.replay()
        >>> replay.write_html("replay.html")
        >>> "</script>" in replay.html, replay.height > 100, replay.caption[-1]
        (True, True, '.')
    """

    def __init__(self, run_id: str, data: Mapping[str, Any], colours: Palette, plays: bool) -> None:
        """Keep the pictures; use `run.plot.replay`."""
        self._run_id, self._colours = run_id, colours
        self.data = {**data, "plays": plays, "linked": False}

    def __repr__(self) -> str:
        """Return the run and the steps that are played."""
        steps = self.data["steps"]
        return f"Replay({self._run_id!r}, {len(steps)} pictures, steps {steps[0]} to {steps[-1]})"

    @property
    def caption(self) -> str:
        """What the picture shows, in a sentence."""
        return str(self.data["about"])

    @property
    def html(self) -> str:
        """One HTML page with everything in it."""
        script = _script()
        page = _PAGE.format(
            policy=policy(digest(script.encode())),
            title=f"Replay of {self._run_id}",
            style=_style(self._colours),
            data=Markup(script_json(self.data)),
            script=Markup(script),
        )
        return "".join(page)

    @property
    def height(self) -> int:
        """Pixels that the picture and its buttons take, whatever their width."""
        n = max(1, len(self.data["kinds"]))
        return round(n * min(MOST, max(LEAST, ROOM / n))) + AROUND_ALL + CONTROLS + 2 * MARGIN

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, whole or not at all.

        Raises:
            ConfigError: when something else than a file is there.
            StorageError: when it cannot be written.
        """
        write_output(os.fspath(path), self.html.encode("utf-8"))

    def _repr_html_(self) -> str:
        """Return the page in a frame; Jupyter and marimo call this."""
        frame = _FRAME.format(title=f"Replay of {self._run_id}", page=self.html, height=self.height)
        return "".join(frame)  # marimo takes a plain str, and nothing that is derived from it


@cache
def _script() -> str:
    """Return the player of the pages and what starts it; no value of a run is in it."""
    player = _PLAYER.joinpath("replay.js").read_text("utf-8")
    return player.replace("export default function", "const show = function", 1) + _START


def _style(colours: Palette) -> Markup:
    """Return the player's style in a theme, under the names that streamlit gives its colours on the pages."""
    names = {
        "font": theme.FONT,
        "text-color": colours.text,
        "border-color": colours.hairline,
        "primary-color": colours.accent,
    }
    variables = "; ".join(f"--st-{name}: {value}" for name, value in names.items())
    player = _PLAYER.joinpath("replay.css").read_text("utf-8")
    body = f"body {{ margin: {MARGIN}px; background: {colours.panel}; color-scheme: {colours.mode} }}"
    return Markup(f":root {{ {variables} }} {body} {player}")


THEMES = ("light", "dark")


class PageFigure(go.Figure):
    """A plotly figure: it shows itself at the end of a cell, and takes every change that plotly knows.

    Attributes:
        caption: the sentence under it on the page, computed from its numbers.
        table: its numbers.

    Examples:
        >>> figure = dynlora.open_run("sample_runs/20261205-150635-e9038c42").plot.flow()
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
