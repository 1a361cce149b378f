"""Colours, marker shapes and the look every figure shares; no other file names a colour.

The sequential scale runs from the panel's own colour, so that zero looks like nothing. Kinds of modules wear Okabe and
Ito's colours, which survive colour blindness, and a marker shape of their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dynlora.text import KIND_WORDS


def digest(script: bytes) -> str:
    """Return what a policy calls a script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode('ascii')}"


def policy(*scripts: str, has_pictures: bool = False) -> str:
    """Return the content security policy of a page: nothing is fetched, sent or framed, only these scripts run.

    Styles stay free, because plotly.js sets them; a style cannot run anything, and no picture can be fetched from
    elsewhere.

    Args:
        scripts: digests of the scripts that may run.
        has_pictures: whether it shows pictures that are files beside it.
    """
    rules = {
        "default-src": ["'none'"],
        "script-src": [f"'{script}'" for script in scripts],
        "style-src": ["'unsafe-inline'"],
        "img-src": ["data:", "blob:", *(["'self'"] if has_pictures else [])],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return "; ".join(" ".join([name, *values]) for name, values in rules.items())


def script_json(value: Any) -> str:
    """Return JSON that can be inside a script element: nothing in it can end the element or start another."""
    written = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written


FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"

CATEGORICAL = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#D55E00", "#8C6BB1", "#9C6B4E")
"""Okabe and Ito's palette without black, which vanishes on a dark panel; two more at the end. Grey is for the rest."""

METHODS = (
    *CATEGORICAL,
    *("#C02870", "#78C040", "#F880F0", "#4888F8", "#989848", "#F89080", "#6058E0", "#C068E8", "#007868"),
)
"""A colour for each method: the palette, and nine that are as far from it and from each other as its own are.

Each can be seen on a light and on a dark panel. No seventeen colours survive colour blindness: lines of the further
ones are dashed, and neighbours have other markers.
"""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class Palette:
    """The colours of one mode.

    Attributes:
        mode: light or dark.
        background: the page.
        panel: a card, and zero on the sequential scale.
        sunken: a quiet area inside a card.
        hairline: borders and grid lines.
        text: words that are read.
        muted: words that help.
        accent: the one colour that speaks.
        second: the line drawn over the accent.
        warning: what needs a look.
        needed: the outline of what is known to need rank.
        sequential: colours from nothing to most, of rank and all that is counted.
        score: the same in another hue, of what is measured about a module.
        diverging: colours from least over neutral to most.
    """

    mode: str
    background: str
    panel: str
    sunken: str
    hairline: str
    text: str
    muted: str
    accent: str
    second: str
    warning: str
    needed: str
    sequential: tuple[str, ...]
    score: tuple[str, ...]
    diverging: tuple[str, ...]

    @property
    def sequential_scale(self) -> list[list[float | str]]:
        """The sequential colours as plotly takes them."""
        return _scale(self.sequential)

    @property
    def score_scale(self) -> list[list[float | str]]:
        """The colours of scores as plotly takes them."""
        return _scale(self.score)

    @property
    def diverging_scale(self) -> list[list[float | str]]:
        """The diverging colours as plotly takes them."""
        return _scale(self.diverging)


LIGHT = Palette(
    mode="light",
    background="#FBFBF9",
    panel="#FFFFFF",
    sunken="#FAFAF7",
    hairline="#E6E6E1",
    text="#1F2430",
    muted="#6B7280",
    accent="#0F6E84",
    second="#C2570C",
    warning="#B42318",
    needed="#C026D3",
    sequential=("#F6F8F8", "#BBD8DD", "#7DB5C0", "#3B91A2", "#0F6E84", "#073642"),
    score=("#FAF8F2", "#EBDDB2", "#D7BC6C", "#B59432", "#82651B", "#40310C"),
    diverging=("#9A3412", "#E08A4F", "#F8E3D3", "#FFFFFF", "#CFE5E9", "#4F9DAE", "#0B5567"),
)
DARK = Palette(
    mode="dark",
    background="#14171C",
    panel="#1A1E25",
    sunken="#161A20",
    hairline="#2A2F38",
    text="#E7E9ED",
    muted="#8B93A1",
    accent="#3FB6CF",
    second="#FFA94D",
    warning="#FF8A80",
    needed="#FF6AD5",
    sequential=("#1C2129", "#1F4553", "#1B6C83", "#2493AC", "#5CC0D5", "#C3F1F9"),
    score=("#1C2129", "#463A1E", "#75602A", "#A88937", "#D6B85E", "#F7EBC4"),
    diverging=("#FFC89B", "#D9772F", "#5A3A26", "#1A1E25", "#1D4553", "#2C9DB7", "#B5ECF6"),
)


def palette(mode: str | None) -> Palette:
    """Return the colours of a mode; anything but dark is light."""
    return DARK if mode == "dark" else LIGHT


def styles(names: Sequence[str], order: Sequence[int] = range(len(CATEGORICAL))) -> dict[str, tuple[str, str, str]]:
    """Return (colour, marker, dash) for each name, in order; the three cycle apart, so that no two look alike.

    Args:
        names: what is distinguished.
        order: in which the colours are taken.
    """
    return {
        name: (CATEGORICAL[order[i % len(order)]], SYMBOLS[i % len(SYMBOLS)], DASHES[i // len(order) % len(DASHES)])
        for i, name in enumerate(names)
    }


def kind_styles(kinds: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Return the style of each kind of module, as `styles` does: the usual kinds have the same on every page.

    Args:
        kinds: short words, as `text.kind_labels` gives them; others than the usual ones take styles that are left.
    """
    usual, present = list(dict.fromkeys(KIND_WORDS.values())), list(dict.fromkeys(kinds))
    left = [kind for kind in usual if kind not in present]
    own = dict(zip((kind for kind in present if kind not in usual), left, strict=False))
    every = styles([*usual, *(kind for kind in present if kind not in usual and kind not in own)])
    return {kind: every[own.get(kind, kind)] for kind in present}


def contrasting(names: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Return styles as `styles` does, with the colours in an order in which neighbours differ most."""
    return styles(names, (0, 5, 2, 4, 3, 1, 6, 7))


def faded(colour: str, opacity: float) -> str:
    """Return a colour made see-through; opacity from 0 to 1."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity:g})"


def shade(colours: Palette, share: float) -> str:
    """Return the sequential colour at a fraction of the largest value, from 0 to 1."""
    return _between(colours.sequential, share)


def diverging(colours: Palette, share: float) -> str:
    """Return the diverging colour at a fraction of the largest distance, from -1 to 1; 0 is neutral."""
    return _between(colours.diverging, (share + 1) / 2)


def _between(stops: Sequence[str], share: float) -> str:
    place = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    return mixed(stops[low], stops[low + 1], place - low)


def mixed(first: str, second: str, share: float) -> str:
    """Return the colour between two at a fraction from 0, the first, to 1."""
    parts = ((int(first[i : i + 2], 16), int(second[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02X}" for a, b in parts)


def ink_on(colours: Palette, background: str) -> str:
    """Return the colour of words that can be read on a background: the panel's or the text's, by contrast (WCAG)."""
    return max((colours.text, colours.panel), key=lambda ink: _contrast(ink, background))


def figure(colours: Palette, height: int, left: int = 56) -> go.Figure:
    """Return an empty figure in the look of the dashboard; `height` and the `left` margin in pixels."""
    look: dict[str, Any] = {
        "template": _NO_TEMPLATE,
        "height": height,
        # As much below as an axis with a title takes: plotly draws a figure again that turns out to need more.
        "margin": {"l": left, "r": 12, "t": 12, "b": 47},
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "font": {"family": FONT, "size": 12, "color": colours.text},
        "hoverlabel": {
            "bgcolor": colours.panel,
            "bordercolor": colours.hairline,
            "font": {"family": FONT, "size": 12, "color": colours.text},
            "align": "left",
            "namelength": -1,
        },
        "legend": {
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.02,
            "xanchor": "left",
            "x": 0,
            "font": {"size": 12, "color": colours.muted},
            "title": {"text": ""},
            "maxheight": 0.9,
        },
        "colorway": list(CATEGORICAL),
        "showlegend": False,
        "uirevision": "keep",
        "dragmode": "zoom",
        "xaxis": axis(colours),
        "yaxis": axis(colours),
    }
    return go.Figure(layout=look)


SIZES = ("size", "height", "thickness", "width", "standoff", "l", "r", "t", "b", "xshift", "yshift")
"""What a figure says in pixels."""


def enlarged(drawn: go.Figure, times: float) -> go.Figure:
    """Return a figure whose words, marks, lines and height are larger, as it is seen from the end of a room."""
    return drawn if times == 1 else go.Figure(_grown(drawn.to_plotly_json(), times))


def _grown(value: Any, times: float) -> Any:
    """Return part of a figure with its sizes multiplied."""
    if isinstance(value, dict):
        return {
            key: times * one if key in SIZES and isinstance(one, int | float) else _grown(one, times)
            for key, one in value.items()
        }
    return [_grown(one, times) for one in value] if isinstance(value, list | tuple) else value


def axis(colours: Palette) -> dict[str, Any]:
    """Return the look of an axis: a hairline grid, muted ticks, no zero line."""
    return {
        "gridcolor": colours.hairline,
        "linecolor": colours.hairline,
        "zeroline": False,
        "ticks": "",
        "tickfont": {"size": 11, "color": colours.muted},
        "title": {"font": {"size": 12, "color": colours.muted}, "standoff": 8},
        "automargin": True,
        "separatethousands": True,
    }


def axis_title(words: str, colours: Palette) -> dict[str, Any]:
    """Return the title of an axis that is not plotly's first, in the look of all others."""
    return {**axis(colours)["title"], "text": words}


def colour_bar(label: str, colours: Palette, **more: Any) -> dict[str, Any]:
    """Return the bar that explains a colour scale: thin, without a frame, its title beside it.

    Args:
        label: what the scale measures, with the unit.
        colours: of the mode.
        more: of plotly's colour bar, such as `nticks` or `len`; what is given again replaces the usual.
    """
    return {
        "title": {"text": label, "side": "right"},
        "thickness": 9,
        "outlinewidth": 0,
        "tickfont": {"size": 11, "color": colours.muted},
        **more,
    }


def interval(
    values: pd.Series, frame: pd.DataFrame, colour: str, low: str = "low", high: str = "high", **look: Any
) -> dict[str, Any]:
    """Return error bars around values, from the column `low` to the column `high` of their frame.

    Args:
        values: that the bars are of.
        frame: with the ends, in the order of the values.
        colour: of the bars.
        low: column of the lower end.
        high: column of the upper end.
        look: of plotly's error bars, such as `thickness` or `width`, pixels.
    """
    ends = {"array": frame[high] - values, "arrayminus": values - frame[low]}
    return {"type": "data", "symmetric": False, **ends, "color": colour, "thickness": 1.4, **look}


MANY_NAMES, MOST_NAMES = 16, 80


def column_gap(columns: int) -> int:
    """Return the gap between the columns of a heat map, pixels; many columns are no wider than it on a small screen."""
    return 1 if columns < NARROW_FROM else 0


NARROW_FROM = 60
"""So many columns have a few pixels each on a screen of 375."""


def name_axis(names: Sequence[str], colours: Palette) -> dict[str, Any]:
    """Return an x axis that names what is at 0, 1, 2, ...; names are escaped.

    More than `MANY_NAMES` modules in runs of a kind ("query 0", "query 1", ...) get one label a kind, at the middle of
    its run, so that a narrow screen can show them too; more than `MOST_NAMES` of anything else get none.
    """
    ends, stems = [], [re.sub(r" \d+$", "", name) for name in names]
    for index, stem in enumerate(stems):
        if index + 1 == len(stems) or stems[index + 1] != stem:
            ends.append(index)
    places, texts = [float(index) for index in range(len(names))], list(names)
    if len(names) > MANY_NAMES and 3 * len(ends) <= len(names):
        begins = [0, *(end + 1 for end in ends[:-1])]
        places = [(begin + end) / 2 for begin, end in zip(begins, ends, strict=True)]
        texts = [stems[end] for end in ends]
    return {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": texts,
        "showgrid": False,
        "autotickangles": [0, -60],
        "showticklabels": len(texts) <= MOST_NAMES,
        "tickfont": {"size": 9 if len(texts) > 20 else 11, "color": colours.muted},
        "range": [-0.6, max(len(names), 1) - 0.4],
    }


def single_step(drawn: go.Figure, steps: Iterable[int]) -> None:
    """Let the x axis name the step alone where there is only one: there are no steps before 0, nor halves of them."""
    distinct = {int(step) for step in steps}
    if len(distinct) == 1:
        step = distinct.pop()
        drawn.update_xaxes(range=[step - 0.5, step + 0.5], tickvals=[step])


def css_variables(colours: Palette) -> str:
    """Return the colours of a mode as variables of a style sheet: `--panel`, `--text` and so on."""
    names = ("background", "panel", "sunken", "hairline", "text", "muted", "accent", "second", "warning")
    return "; ".join(f"--{name}: {getattr(colours, name)}" for name in names)


_CLEAR = "rgba(0, 0, 0, 0)"

_NO_TEMPLATE = go.layout.Template()
"""Instead of plotly's own, which takes ten times as long as all the rest and travels with each figure."""


def _scale(colours: Sequence[str]) -> list[list[float | str]]:
    return [[i / (len(colours) - 1), colour] for i, colour in enumerate(colours)]


def _contrast(first: str, second: str) -> float:
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    """Return the relative luminance of a colour, 0 to 1."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
