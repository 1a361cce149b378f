"""The colour of a run is that of its method: the same on every page, in every comparison and tomorrow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from dynlora.analysis.run_summary import RANDOM, method_of
from dynlora.viz.kit import theme

ORDER = (0, 5, 2, 4, 3, 1, 6, 7)
"""Places of the palette in an order in which neighbours differ most."""

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
"""Places of the methods; those beyond the palette's length are its colours again, drawn otherwise."""

MOST_STYLES = 48
"""Styles of one colour: its markers by the dashes. More configurations than that look alike."""

Style = tuple[str, str, str]
"""Colour, marker and dash."""


def method_place(method: str) -> int:
    """Return the place of a method; one that dynlora does not have takes a place by its name."""
    by_name = int.from_bytes(hashlib.sha256(method.encode()).digest()[:4], "big") % len(theme.CATEGORICAL)
    return PLACES.get(method, by_name)


def run_colour(row: Mapping[str, Any]) -> str:
    """Return the colour of a run in lists: that of its method."""
    return theme.CATEGORICAL[method_place(method_of(row)) % len(theme.CATEGORICAL)]


def styles(methods: Mapping[str, str]) -> dict[str, Style]:
    """Return (colour, marker, dash) of configurations that are seen together, no two alike.

    The oldest configuration of a method has the method's style. Its others have the method's colour too and differ in
    marker and dash, unless all are of one method: then colours distinguish them, and the first is the method's.

    Args:
        methods: of the configurations, by the id of the oldest run of each; the order changes nothing.
    """
    is_alone = len(set(methods.values())) == 1
    firsts = {method_place(method): _style(method_place(method), 0) for method in methods.values()}
    styles: dict[str, Style] = {}
    for run, method in sorted(methods.items()):
        place = method_place(method)
        others = (_style(place, step, is_alone=is_alone) for step in range(1, MOST_STYLES))
        taken = {*styles.values(), *firsts.values()}
        is_first = firsts[place] not in styles.values()
        styles[run] = (
            firsts[place] if is_first else next((style for style in others if style not in taken), firsts[place])
        )
    return styles


def _style(place: int, step: int, *, is_alone: bool = False) -> Style:
    """Return the style of a place, or the `step`-th other one of its method."""
    size = len(theme.CATEGORICAL)
    colour, dash = place % size, place // size
    marker = colour + step + step // 24
    if is_alone:
        colour, dash = ORDER[(ORDER.index(colour) + step) % size], dash + step // size
    else:
        dash += step
    return theme.CATEGORICAL[colour], theme.SYMBOLS[marker % len(theme.SYMBOLS)], theme.DASHES[dash % len(theme.DASHES)]
