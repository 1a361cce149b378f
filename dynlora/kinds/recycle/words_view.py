"""The synthetic inputs of a class: the nearest word of each token that is left, as plain HTML."""

from __future__ import annotations

import html

from dynlora.kinds.recycle.result import Inverted
from dynlora.text import one_line
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

MOST_INPUTS = 8
"""Inputs that are drawn."""


def words_html(one: Inverted, colours: Palette) -> str:
    """Return the inputs of a class, a line each; every word of the run is escaped."""
    style = (
        f"background:{theme.faded(colours.accent, 0.12)};border-radius:4px;padding:0.1rem 0.35rem;font-size:0.82rem;"
        "font-family:ui-monospace,monospace"
    )
    lines = [
        "".join(f"<span style='{style}'>{html.escape(one_line(word, 30)) or '·'}</span>" for word in words)
        for words in one.inputs[:MOST_INPUTS]
    ]
    row = "display:flex;flex-wrap:wrap;gap:0.25rem;margin:0.25rem 0"
    return "".join(f"<div style='{row}'>{line}</div>" for line in lines)
