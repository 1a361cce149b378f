"""Which texts of a data set are shown at once, and which only when a viewer asks for them.

Data sets of tweets hold texts that nobody wants on a screen in front of others. They are hidden, never left out: the
order of a list and the numbers beside a text stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import pandas as pd
from glin_profanity import Filter

from dynlora.viz.kit.text import one_line

HIDDEN = "(hidden: strong language)"
"""What stands in the place of a text that is shown only when asked for."""

COLUMNS = ("text", "text_pair", "second text", "before", "after", "prompt", "completion")
"""Columns of lists of examples that hold texts."""

MOST_READ = 2000
"""Characters of a text that are looked at: tables and labels show no more of it."""


@cache
def _filter() -> Filter:
    return Filter({"languages": ["english"]})


@lru_cache(maxsize=20_000)
def _is_strong(text: str) -> bool:
    return bool(_filter().is_profane(text))


def is_strong(text: object) -> bool:
    """Say whether a text holds a word of the list of strong language; what is no text does not."""
    return isinstance(text, str) and _is_strong(text[:MOST_READ])


def shown(text: object) -> str:
    """Return a text, or `HIDDEN` in its place."""
    return HIDDEN if is_strong(text) else str(text)


def count(frame: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> int:
    """Return how many rows of a list of examples hold a text that is hidden, in these columns."""
    return int(_strong_rows(frame, columns).sum())


def hidden(frame: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Return a list of examples with `HIDDEN` in the place of strong texts of these columns; all else stays."""
    found = frame.copy()
    for column in _columns(frame, columns):
        found[column] = [HIDDEN if is_strong(text) else text for text in frame[column]]
    return found


def labels(frame: pd.DataFrame) -> dict[int, str]:
    """Return what a list of examples calls each, by its index: the beginning of its text, or that it is hidden."""
    texts = zip(frame.index, frame["text"], strict=True)
    return {int(index): one_line(shown(text), LABEL) for index, text in texts}


LABEL = 70
"""Characters of an example's text in a list."""


def presentable_first(frame: pd.DataFrame) -> pd.DataFrame:
    """Return examples that are equally good with those that can be shown first, each part in its order."""
    strong = _strong_rows(frame, COLUMNS)
    return pd.concat([frame[~strong], frame[strong]])


def _strong_rows(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    strong = pd.Series(False, index=frame.index)
    for column in _columns(frame, columns):
        strong |= frame[column].map(is_strong).astype(bool)
    return strong


def _columns(frame: pd.DataFrame, columns: Sequence[str]) -> Sequence[str]:
    return [name for name in columns if name in frame.columns]
