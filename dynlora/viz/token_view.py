"""A sentence with each token in the colour of a number; as a table of plain HTML, and the frames behind it."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# (pandas comes without types)
from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dynlora.viz import theme
from dynlora.viz.labels import one_line
from dynlora.viz.theme import Palette

MOST_TOKENS = 256
"""Tokens that are drawn; more would be a wall."""


def words(tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what stands for each token: its text, the model's own tokens in brackets as they are."""
    return [one_line(token["text"], 40) or "·" for token in tokens[:MOST_TOKENS]]


def sentence_html(
    tokens: Sequence[Mapping[str, Any]],
    rows: Mapping[str, Sequence[float | None]],
    colours: Palette,
    *,
    centre: float | None = 0.0,
    unit: str = "",
) -> str:
    """Return one line of tokens for each row of numbers, in colours on a common scale.

    Args:
        tokens: as an explanation lists them: text and part.
        rows: a number for each token, by the name of the row; None draws a token bare.
        colours: of the mode.
        centre: the neutral number of a diverging scale; None for a sequential one from zero.
        unit: of the numbers, for what a pointer shows.
    """
    shown = words(tokens)
    reach = _reach(rows.values(), centre)
    lines = []
    for name, values in rows.items():
        cells = "".join(
            _token(word, value, reach, centre, unit, colours)
            for word, value in zip(shown, list(values)[: len(shown)], strict=False)
        )
        label = f'<span style="color:{colours.muted};font-size:0.78rem;min-width:5.5rem">{html.escape(name)}</span>'
        lines.append(
            f'<div style="display:flex;gap:0.6rem;align-items:baseline;margin:0.15rem 0">{label}'
            f'<span style="line-height:1.9;overflow-wrap:anywhere">{cells}</span></div>'
        )
    return f'<div role="img" aria-label="{html.escape(" ".join(shown)[:400])}">{"".join(lines)}</div>'


def _reach(rows: Any, centre: float | None) -> float:
    """Return the number that gets the strongest colour."""
    known = [value for values in rows for value in values if value is not None and np.isfinite(value)]
    return max((abs(value - (centre or 0.0)) for value in known), default=0.0) or 1.0


def _token(word: str, value: float | None, reach: float, centre: float | None, unit: str, colours: Palette) -> str:
    """Return one token as a box in its colour."""
    text = html.escape(word)
    if value is None or not np.isfinite(value):
        return f'<span style="color:{colours.muted};padding:0 0.15rem">{text}</span> '
    share = (value - (centre or 0.0)) / reach
    back = theme.shade(colours, share) if centre is None else theme.diverging(colours, share)
    ink = theme.ink_on(colours, back)
    return (
        f'<span title="{value:+.4g} {html.escape(unit)}" style="background:{back};color:{ink};border-radius:4px;'
        f'padding:0.05rem 0.25rem">{text}</span> '
    )


def contributions(tokens: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> pd.DataFrame:
    """Return the tokens with what each adds: columns token, adapter, base, only adapter."""
    frame = pd.DataFrame(
        {
            "token": words(tokens),
            "adapter": pd.to_numeric(pd.Series(found["contribution"][:MOST_TOKENS], dtype=float)),
            "base": pd.to_numeric(pd.Series(found["base_contribution"][:MOST_TOKENS], dtype=float)),
        }
    )
    return frame.assign(**{"only adapter": frame["adapter"] - frame["base"]})


def by_layer(gate: Sequence[Sequence[float | None]], modules: pd.DataFrame) -> dict[str, list[float]]:
    """Return the mean gate of each token over the modules of a layer, by the layer's name, the lowest first.

    Args:
        gate: one row per module as recorded, one number a token.
        modules: as `capacity.described` returns them.
    """
    table = np.array([[np.nan if value is None else value for value in row] for row in gate], dtype=float)
    found = {}
    for layer, part in modules.groupby("layer", sort=True):
        found[f"layer {int(layer)}"] = table[part["position"].to_numpy(int)].mean(0).tolist()
    return found


def layers_of(moved: Sequence[Sequence[float | None]]) -> dict[str, list[float | None]]:
    """Return a row of numbers a layer by the layer's name, the lowest first."""
    return {f"layer {index}": list(row) for index, row in enumerate(moved)}
