"""A text as its tokens, each on the colour of a number and with what a pointer shows of it; plain HTML.

Unlike words in a line, tokens stay joined as they are in the text: spaces and line breaks are theirs.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynlora.text import minus
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

MOST_TOKENS = 600
"""Tokens that are drawn; more would be a wall."""

FARTHEST = 5.0
"""Nats at which a colour is strongest: p(token) is 150 times as large. One rare token would pale all others."""


SPECIAL = re.compile(r"<\|[^|]*\|>|</?s>|<(bos|eos|pad|unk)>|\[(CLS|SEP|PAD|MASK|UNK)\]")
"""What a tokenizer writes for a token that is no text, such as its end token."""

SYMBOL = "◆"
"""Stands for a special token."""


@dataclass(frozen=True)
class TextToken:
    """One token.

    Attributes:
        text: as it is in the text.
        value: the number that colours it; None for a token that does not count, which is pale.
        tooltip: what a pointer shows, lines of plain text.
    """

    text: str
    value: float | None
    tooltip: str = ""


@dataclass(frozen=True)
class Colouring:
    """What colours mean.

    Attributes:
        meaning: what the numbers are, with their unit.
        ends: words at the weakest or lowest colour, and at the strongest.
        is_diverging: from below the neutral number to above; else from it.
        centre: the neutral number.
    """

    meaning: str
    ends: tuple[str, str]
    is_diverging: bool = True
    centre: float = 0.0

    def colour(self, value: float, reach: float, colours: Palette) -> str:
        """Return the colour of a number; `reach` is how far from the neutral one it is strongest."""
        scale = theme.diverging if self.is_diverging else theme.shade
        return scale(colours, (value - self.centre) / reach)


def tokens_html(lines: Mapping[str, Sequence[TextToken]], colouring: Colouring, colours: Palette) -> str:
    """Return one text for each line of tokens, all on one scale, and the legend.

    Args:
        lines: tokens by the name of the line.
        colouring: what colours mean.
        colours: of the mode.
    """
    known = [token.value for tokens in lines.values() for token in tokens if token.value is not None]
    values = [value - colouring.centre for value in known]
    reach, is_cut = reach_of(values), any(abs(value) > FARTHEST for value in values)
    return f"{lines_html(lines, reach, colouring, colours)}{_legend(reach, is_cut, colouring, colours)}"


def lines_html(lines: Mapping[str, Sequence[TextToken]], reach: float, colouring: Colouring, colours: Palette) -> str:
    """Return what `tokens_html` does without the legend; `reach` is how far from neutral a colour is strongest."""
    return "".join(_line(name, tokens, reach, colouring, colours) for name, tokens in lines.items())


def cut_words(n: int) -> str:
    """Say that not all of n tokens are drawn, empty where they are."""
    return f" The first {MOST_TOKENS} of {n:,} tokens are shown." if n > MOST_TOKENS else ""


def reach_of(values: Iterable[float]) -> float:
    """Return the number with the strongest colour: the largest, at most `FARTHEST`; 1 where all are zero."""
    known = [abs(value) for value in values if np.isfinite(value)]
    return min(max(known, default=0.0), FARTHEST) or 1.0


def visible(text: str) -> str:
    """Return a token's text with its line breaks and its spaces made visible, for a table or a list."""
    return without_special(text).replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣") or "(empty)"


def without_special(text: str) -> str:
    """Return a token's text; the symbol for a special token."""
    return SYMBOL if SPECIAL.fullmatch(text.strip()) else text


def _line(name: str, tokens: Sequence[TextToken], reach: float, colouring: Colouring, colours: Palette) -> str:
    cells = "".join(_token(token, reach, colouring, colours) for token in tokens[:MOST_TOKENS])
    return f'<div class="dl-tokens"><small>{html.escape(name)}</small><p>{cells}</p></div>'


def _token(token: TextToken, reach: float, colouring: Colouring, colours: Palette) -> str:
    title = f' title="{html.escape(token.tooltip)}"' if token.tooltip else ""
    text = html.escape(without_special(token.text)).replace("\n", "⏎\n") or "·"
    if token.value is None or not np.isfinite(token.value):
        return f'<span{title} style="color:{colours.muted};opacity:0.75">{text}</span>'
    back = colouring.colour(token.value, reach, colours)
    return f'<span{title} style="background:{back};color:{theme.ink_on(colours, back)}">{text}</span>'


def _legend(reach: float, is_cut: bool, colouring: Colouring, colours: Palette) -> str:
    """Return a bar of the colours with its ends, and what they mean; `is_cut`: some numbers are beyond the ends."""
    start, end = colouring.centre - (reach if colouring.is_diverging else 0.0), colouring.centre + reach
    places = np.linspace(start, end, 9)
    bar = "".join(f'<i style="background:{colouring.colour(place, reach, colours)}"></i>' for place in places)
    low, high = colouring.ends
    first = f"{'≤ ' if is_cut and colouring.is_diverging else ''}{minus(f'{start:.3g}')}"
    last = f"{'≥ ' if is_cut else ''}{'+' if colouring.is_diverging and not colouring.centre else ''}{end:.3g}"
    return (
        f'<div class="dl-legend"><span>{html.escape(low)} ({first})</span><b>{bar}</b>'
        f"<span>{html.escape(high)} ({last})</span><span>{html.escape(colouring.meaning)}</span></div>"
    )
