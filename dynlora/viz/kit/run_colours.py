"""How runs are drawn: the colour of a run is that of its method, on every page; of many, a few have a colour."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynlora.analysis.run_summary import RANDOM, method_of
from dynlora.analysis.seed_groups import Group
from dynlora.text import one_line
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

PLACES = {
    "lora": 0,
    "dynamic": 4,
    f"dynamic, {RANDOM}": 7,
    "adalora": 2,
    "elalora": 1,
    "sora": 3,
    "gelora": 5,
    "beamlora": 6,
    "aslora": 8,
    "l1ra": 9,
    "diffora": 10,
    "xgblora": 11,
    "eva": 12,
    "gora": 13,
    "lora_sp": 14,
    "glora": 15,
    "lora_ensemble": 16,
}
"""Places of the methods among the colours of `theme.METHODS`, each its own."""

MOST_STYLES = 48
"""Styles of one colour: its markers by the dashes. More configurations than that look alike."""

SHADES = ((0, 0.0), (0, 0.22), (255, 0.4))
"""What the configurations of a method mix into its colour: grey value and fraction; nothing, black, white."""

Style = tuple[str, str, str]
"""Colour, marker and dash."""


def method_place(method: str) -> int:
    """Return the place of a method; one that dynlora does not have takes a place by its name."""
    by_name = int.from_bytes(hashlib.sha256(method.encode()).digest()[:4], "big") % len(theme.METHODS)
    return PLACES.get(method, by_name)


def run_colour(row: Mapping[str, Any]) -> str:
    """Return the colour of a run in lists: that of its method."""
    return theme.METHODS[method_place(method_of(row))]


def styles(methods: Mapping[str, str]) -> dict[str, Style]:
    """Return (colour, marker, dash) of configurations that are seen together, no two alike.

    The oldest configuration of a method has the method's style. Its others have a shade of the method's colour, and
    differ in marker and dash, whatever else is on the page.

    Args:
        methods: of the configurations, by the id of the oldest run of each; the order changes nothing.
    """
    firsts = {method_place(method): _style(method_place(method), 0) for method in methods.values()}
    styles: dict[str, Style] = {}
    begun: set[str] = set()
    for run, method in sorted(methods.items()):
        place, is_new = method_place(method), method not in begun
        begun.add(method)
        others = [_style(place, step, is_first=is_new) for step in range(1, MOST_STYLES)]
        taken = {*styles.values(), *firsts.values()}
        is_first = firsts[place] not in styles.values()
        styles[run] = (
            firsts[place] if is_first else next((style for style in others if style not in taken), firsts[place])
        )
    return styles


def _style(place: int, step: int, *, is_first: bool = False) -> Style:
    """Return the style of a place, or the `step`-th other one; the first of a method has its colour as it is."""
    row, column = divmod(place, len(theme.SYMBOLS))
    marker, dash = column + step + step // 24, row + step
    shade = shades(theme.METHODS[place])[0 if is_first else step % len(SHADES)]
    return shade, theme.SYMBOLS[marker % len(theme.SYMBOLS)], theme.DASHES[dash % len(theme.DASHES)]


def shades(colour: str) -> tuple[str, ...]:
    """Return a colour as it is, darker and lighter: the configurations of one method."""
    parts = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    mixed = ([round(part + (grey - part) * share) for part in parts] for grey, share in SHADES)
    return tuple("#{:02X}{:02X}{:02X}".format(*one) for one in mixed)


MOST_COLOURED = 6
"""Most configurations that have a colour of their own; of more, the first ones have it, unless others are chosen."""

LABEL_LENGTH = 20


@dataclass(frozen=True)
class LineStyle:
    """How one configuration is drawn.

    Attributes:
        colour: of its line and markers.
        symbol: of its markers.
        dash: of its line.
        is_muted: it is one of many, drawn thin and grey, without a name.
    """

    colour: str
    symbol: str
    dash: str
    is_muted: bool = False


def coloured(names: Sequence[str], highlighted: Collection[str] = ()) -> list[str]:
    """Return the names that are drawn in colour: the highlighted ones, else the first `MOST_COLOURED`."""
    return [name for name in names if name in highlighted] or list(names[:MOST_COLOURED])


def line_styles(
    names: Sequence[str],
    colours: Palette,
    highlighted: Collection[str] = (),
    groups: Mapping[str, Group] | None = None,
    hidden: Collection[Group] = (),
) -> dict[str, LineStyle]:
    """Return the style of each name; equal names in equal order have equal styles in every chart.

    Args:
        names: of the configurations.
        colours: of the mode.
        highlighted: names to draw in colour; see `coloured`.
        groups: the configurations by name, whose methods decide the colours; without them the order does.
        hidden: configurations that are hidden, whose styles stay theirs.
    """
    in_colour = coloured(names, highlighted)
    named = theme.contrasting(in_colour) if groups is None else _by_method(groups, hidden)
    grey = LineStyle(theme.faded(colours.muted, 0.45), "circle", "solid", is_muted=True)
    return {name: LineStyle(*named[name]) if name in in_colour else grey for name in names}


def _by_method(groups: Mapping[str, Group], hidden: Collection[Group]) -> dict[str, Style]:
    """Return the style of each name by the method of its group, whichever of the groups are chosen or hidden."""
    by_run = styles({group.oldest: group.method for group in (*groups.values(), *hidden)})
    return {name: by_run[group.oldest] for name, group in groups.items()}


def dots(names: Iterable[str], styles: Mapping[str, LineStyle]) -> list[str | None]:
    """Return the colour of the dot beside each name; None for one without a colour of its own."""
    known = (styles.get(name) for name in names)
    return [None if style is None or style.is_muted else style.colour for style in known]


def eye_styles(styles: Sequence[LineStyle | None], colours: Palette) -> str:
    """Return the style sheet that gives the eye of each configuration its colour; one without a style is hidden."""
    rules = [
        f'.st-key-eyes button:nth-of-type({place}) p::before {{ content: "● "; color: '
        f"{colours.muted if style is None else style.colour}; }}"
        for place, style in enumerate(styles, 1)
    ]
    rules.append(
        f".st-key-eyes button[aria-pressed=false] p {{ color: {colours.muted}; text-decoration: line-through; }}"
    )
    return f"<style>{' '.join(rules)}</style>"


def short_label(name: str, length: int = LABEL_LENGTH) -> str:
    """Return a configuration's name for the end of its line: without remarks in brackets and number of runs."""
    plain = re.sub(r", n = \d+\Z", "", re.sub(r" \([^()]*\)", "", name))
    return one_line(plain, length)


def apart(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return places moved as little as keeps neighbours at least `gap` apart, in the same order.

    With d = gap, place i of the sorted ones minus i · d must not fall: the isotonic regression of these differences,
    by pooling neighbours that fall.
    """
    names = sorted(places, key=places.__getitem__)
    blocks: list[list[float]] = []
    for i, name in enumerate(names):
        blocks.append([places[name] - i * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    levels = [float(np.mean(block)) for block in blocks for _ in block]
    return {name: level + i * gap for i, (name, level) in enumerate(zip(names, levels, strict=True))}
