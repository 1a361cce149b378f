"""A sentence with each token in the colour of a number; as a table of plain HTML, and the frames behind it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from dynlora.text import one_line
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

MOST_TOKENS = 256
"""Tokens that are drawn; more would be a wall."""


def words(tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what stands for each token: its text, the model's own tokens in brackets as they are."""
    return [one_line(token["text"], 40) or "·" for token in tokens[:MOST_TOKENS]]


def cut_words(tokens: Sequence[Mapping[str, Any]]) -> str:
    """Say that not all tokens are drawn, empty where they are."""
    return f" The first {MOST_TOKENS} of {len(tokens):,} tokens are shown." if len(tokens) > MOST_TOKENS else ""


@dataclass(frozen=True)
class Scale:
    """What the colours of tokens mean.

    Attributes:
        meaning: what the numbers are, with their unit; it is at the key.
        unit: what a pointer shows behind a number.
        centre: the neutral number of a diverging scale; None for a sequential one from zero.
    """

    meaning: str = ""
    unit: str = ""
    centre: float | None = 0.0

    def share(self, value: float, reach: float) -> float:
        """Return where a number is, 0 where it is neutral and 1 or -1 where the colour is strongest."""
        return (value - (self.centre or 0.0)) / reach

    def colour(self, share: float, colours: Palette) -> str:
        """Return the colour of a fraction."""
        return theme.shade(colours, share) if self.centre is None else theme.diverging(colours, share)

    def number(self, value: float) -> str:
        """Return a number as people read it; a sign where it says whether something is added or taken away."""
        return f"{value:+.4g}" if self.centre == 0 and value else f"{value:.4g}"


def sentence_html(
    tokens: Sequence[Mapping[str, Any]],
    rows: Mapping[str, Sequence[float | None]],
    colours: Palette,
    scale: Scale,
) -> str:
    """Return one line of tokens for each row of numbers, in colours on a common scale, and the key to the colours.

    Args:
        tokens: as an explanation lists them: text and part.
        rows: a number for each token, by the name of the row; None draws a token bare.
        colours: of the mode.
        scale: what the colours mean.
    """
    pieces = words(tokens)
    reach = _reach(rows.values(), scale.centre)
    lines = []
    for name, values in rows.items():
        cells = "".join(
            _token(word, value, reach or 1.0, scale, colours)
            for word, value in zip(pieces, list(values)[: len(pieces)], strict=False)
        )
        lines.append(_line(name, cells, colours))
    label = html.escape(" ".join(pieces)[:400])
    return f'<div role="img" aria-label="{label}">{"".join(lines)}</div>{_key(reach, scale, colours)}'


def thinned(rows: Mapping[str, Sequence[float | None]], most: int) -> dict[str, Sequence[float | None]]:
    """Return at most `most` rows, the first, the last and some at even distances between them."""
    names = list(rows)
    places = np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)) if names else []
    return {names[place]: rows[names[place]] for place in places}


def _line(name: str, cells: str, colours: Palette) -> str:
    """Return a line with its name before it; `cells` is HTML already."""
    label = f'<span style="color:{colours.muted};font-size:0.78rem;min-width:5.5rem">{html.escape(name)}</span>'
    return (
        f'<div style="display:flex;gap:0.6rem;align-items:baseline;margin:0.15rem 0">{label}'
        f'<span style="line-height:1.9;overflow-wrap:anywhere">{cells}</span></div>'
    )


def _key(reach: float, scale: Scale, colours: Palette) -> str:
    """Return the numbers of the strongest colours and of the neutral one, each on its colour, and what they are."""
    if not reach:
        return ""
    ends = (0.0, 1.0) if scale.centre is None else (-1.0, 0.0, 1.0)
    boxes = "".join(
        _box(scale.number((scale.centre or 0.0) + share * reach), scale.colour(share, colours), colours)
        for share in ends
    )
    meaning = f'<span style="color:{colours.muted};font-size:0.78rem">{html.escape(scale.meaning)}</span>'
    return _line("colours", f"{boxes}{meaning}", colours)


def _reach(rows: Any, centre: float | None) -> float:
    """Return how far the number with the strongest colour is from the neutral one; 0 where all are neutral."""
    known = [value for values in rows for value in values if value is not None and np.isfinite(value)]
    return max((abs(value - (centre or 0.0)) for value in known), default=0.0)


def _token(word: str, value: float | None, reach: float, scale: Scale, colours: Palette) -> str:
    """Return one token as a box in its colour."""
    if value is None or not np.isfinite(value):
        return f'<span style="color:{colours.muted};padding:0 0.15rem">{html.escape(word)}</span> '
    tooltip = f"{scale.number(value)} {scale.unit}".strip()
    return _box(word, scale.colour(scale.share(value, reach), colours), colours, tooltip)


def _box(text: str, back: str, colours: Palette, tooltip: str = "") -> str:
    """Return words on a colour; a pointer shows `tooltip`."""
    title = f'title="{html.escape(tooltip)}" ' if tooltip else ""
    return (
        f'<span {title}style="background:{back};color:{theme.ink_on(colours, back)};border-radius:4px;'
        f'padding:0.05rem 0.25rem">{html.escape(text)}</span> '
    )


def contributions(tokens: Sequence[Mapping[str, Any]], explanation: Mapping[str, Any]) -> pd.DataFrame:
    """Return the tokens with what each adds: columns token, adapter, base, only adapter."""
    frame = pd.DataFrame(
        {
            "token": words(tokens),
            "adapter": pd.to_numeric(pd.Series(explanation["contribution"][:MOST_TOKENS], dtype=float)),
            "base": pd.to_numeric(pd.Series(explanation["base_contribution"][:MOST_TOKENS], dtype=float)),
        }
    )
    return frame.assign(**{"only adapter": frame["adapter"] - frame["base"]})


def by_layer(gate: Sequence[Sequence[float | None]], modules: pd.DataFrame) -> dict[str, list[float]]:
    """Return the mean gate of each token over the modules of a layer, by the layer's name, the lowest first.

    Args:
        gate: one row per module as recorded, one number per token.
        modules: as `capacity.described` returns them.
    """
    table = np.array([[np.nan if value is None else value for value in row] for row in gate], dtype=float)
    sums = {}
    for layer, part in modules.groupby("layer", sort=True):
        sums[f"layer {int(cast('int', layer))}"] = table[part["position"].to_numpy(int)].mean(0).tolist()
    return sums


def layers_of(moved: Sequence[Sequence[float | None]]) -> dict[str, list[float | None]]:
    """Return a row of numbers a layer by the layer's name, the lowest first."""
    return {f"layer {index}": list(row) for index, row in enumerate(moved)}
