"""How each configuration is drawn on Compare: one colour in all charts; of many, a few in colour and the rest grey."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynlora.analysis.seed_groups import Group
from dynlora.text import one_line
from dynlora.viz.kit import run_colours, theme
from dynlora.viz.kit.theme import Palette

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
    shown = coloured(names, highlighted)
    named = theme.contrasting(shown) if groups is None else _by_method(groups, hidden)
    grey = LineStyle(theme.faded(colours.muted, 0.45), "circle", "solid", is_muted=True)
    return {name: LineStyle(*named[name]) if name in shown else grey for name in names}


def _by_method(groups: Mapping[str, Group], hidden: Collection[Group]) -> dict[str, run_colours.Style]:
    """Return the style of each name by the method of its group, whichever of the groups are chosen or hidden."""
    styles = run_colours.styles({group.oldest: group.method for group in (*groups.values(), *hidden)})
    return {name: styles[group.oldest] for name, group in groups.items()}


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
    """Return a configuration's name for the end of its line: without fidelity and number of runs."""
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
