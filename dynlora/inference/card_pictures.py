"""The pictures of a model card as SVG: text and shapes alone, readable on light and on dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, MARGIN = 640, 240, 40
"""Of the curve, pixels."""

CELL, LINE, NAMES = 34, 26, 200
"""Width and height of a cell of the map, and room for the names of its rows, pixels."""

DARKEST = 0.65
"""Opacity of the largest rank: black text on it has a contrast of 7 to 1."""

MOST_CELLS = 20_000
"""Modules that are drawn."""

_SVG = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" fill="gray" role="img"'


def curve(points: Sequence[tuple[int, float]]) -> str:
    """Return the curve as an SVG picture with its four ends in numbers."""
    steps, losses = zip(*points, strict=True)
    low, high = min(losses), max(losses)
    wide, tall = (steps[-1] - steps[0]) or 1, (high - low) or 1.0
    places = " ".join(
        f"{MARGIN + (step - steps[0]) / wide * (WIDTH - 2 * MARGIN):.1f},"
        f"{HEIGHT - MARGIN - (loss - low) / tall * (HEIGHT - 2 * MARGIN):.1f}"
        for step, loss in points
    )
    labels = (
        (4, MARGIN, f"{high:.3f}"),
        (4, HEIGHT - MARGIN, f"{low:.3f}"),
        (MARGIN, HEIGHT - 12, f"step {steps[0]}"),
        (WIDTH - 2 * MARGIN, HEIGHT - 12, f"step {steps[-1]}"),
    )
    texts = "".join(f'<text x="{x}" y="{y}">{text}</text>' for x, y, text in labels)
    line = f'<polyline fill="none" stroke="teal" stroke-width="2" points="{places}"/>'
    return f'<svg {_SVG} viewBox="0 0 {WIDTH} {HEIGHT}">{line}{texts}</svg>\n'


def capacity_map(modules: Sequence[tuple[int | None, str, int]]) -> str:
    """Return the rank of each module as an SVG picture: layers from left to right, kinds from top to bottom.

    Args:
        modules: layer (None outside the blocks), kind and rank of each module, in order.
    """
    entries = modules[:MOST_CELLS]
    layers = sorted({-1 if layer is None else layer for layer, _, _ in entries})
    kinds = list(dict.fromkeys(kind for _, kind, _ in entries))
    ranks: dict[tuple[int, str], int] = {}
    for layer, kind, rank in entries:
        place = (-1 if layer is None else layer, kind)
        ranks[place] = ranks.get(place, 0) + rank
    most = max(ranks.values(), default=0) or 1
    heads = [
        _text(NAMES + CELL * (x + 0.5), LINE - 9, "–" if layer < 0 else str(layer), "middle")
        for x, layer in enumerate(layers)
    ]
    names = [_text(NAMES - 8, LINE * (y + 2) - 9, kind[-30:], "end") for y, kind in enumerate(kinds)]
    cells = [
        _cell(x, y, ranks[layer, kind], most)
        for y, kind in enumerate(kinds)
        for x, layer in enumerate(layers)
        if (layer, kind) in ranks
    ]
    wide, tall = NAMES + CELL * len(layers) + 8, LINE * (len(kinds) + 1) + 8
    title = f"<title>Rank by module, 0 to {most}: layers from left to right, kinds from top to bottom</title>"
    size = f'viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}"'
    return f"<svg {_SVG} {size}>{title}{''.join((*heads, *names, *cells))}</svg>\n"


def _cell(x: int, y: int, rank: int, most: int) -> str:
    """Return a cell: white, teal as far as its rank, black text, so that it is read on any ground."""
    left, top = NAMES + CELL * x, LINE * (y + 1)
    box = f'<rect x="{left + 1}" y="{top + 1}" width="{CELL - 2}" height="{LINE - 2}"'
    shade = f'{box} fill="teal" fill-opacity="{DARKEST * rank / most:.2f}"/>'
    return f'{box} fill="white"/>{shade}' + _text(left + CELL / 2, top + LINE - 9, str(rank), "middle", "black")


def _text(x: float, y: float, text: str, anchor: str, fill: str = "gray") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'
