"""Which texts of a data set are shown at once, and which only when a viewer asks for them.

Data sets of tweets hold texts that nobody wants on a screen in front of others. They are hidden, never left out: the
order of a list and the numbers beside a text stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import pandas as pd
from glin_profanity import Filter

from dynlora.text import one_line

HIDDEN = "(hidden: strong language)"
"""What is in the place of a text that is shown only when asked for."""

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


def visible_text(text: object) -> str:
    """Return a text, or `HIDDEN` in its place."""
    return HIDDEN if is_strong(text) else str(text)


def count(frame: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> int:
    """Return how many rows of a list of examples hold a text that is hidden, in these columns."""
    return int(_strong_rows(frame, columns).sum())


def hidden(frame: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Return a list of examples with `HIDDEN` in the place of strong texts of these columns; all else stays."""
    visible = frame.copy()
    for column in _columns(frame, columns):
        visible[column] = [HIDDEN if is_strong(text) else text for text in frame[column]]
    return visible


def labels(frame: pd.DataFrame) -> dict[int, str]:
    """Return what a list of examples calls each, by its index: the beginning of its text, or that it is hidden."""
    texts = zip(frame.index, frame["text"], strict=True)
    return {int(index): one_line(visible_text(text), LABEL) for index, text in texts}


LABEL = 70
"""Characters of an example's text in a list."""


DELICATE = re.compile(
    r"\b(?:sex\w*|porn\w*|nud(?:e|es|ity)|naked|lust\w*|di(?:e|es|ed)|dying|dead\w*|death\w*|kill\w*|murder\w*|assassin\w*|assault\w*|militia\w*|rap(?:e|ed|ist)"
    r"|suicid\w*|guns?|shoot\w*|shot|bomb\w*|terror\w*|war|wars|blood\w*|abus\w*|drugs?|drunk\w*|weed|hat(?:e|ed|es|ers?)"
    r"|hell|damn\w*|stupid\w*|idiot\w*|dumb\w*|ugly|racis\w*|nazi\w*|god|jesus|christ\w*|muslim\w*|islam\w*|jew\w*|catholic\w*"
    r"|isis|trump|obama|biden|clinton|putin|gay\w*|lesbian\w*|black people|white people|abortion\w*)\b|@\w|https?:",
    re.IGNORECASE,
)
"""Words of texts that are fit to be shown and no first example for a room: sex, death, violence, faith, politics."""


def presentable_first(frame: pd.DataFrame) -> pd.DataFrame:
    """Return equally good examples: neutral ones, delicate ones, then those that are hidden, each in its order."""
    strong, delicate = _strong_rows(frame, COLUMNS), _rows(frame, COLUMNS, _is_delicate)
    return pd.concat([frame[~strong & ~delicate], frame[~strong & delicate], frame[strong]])


def _is_delicate(text: object) -> bool:
    return isinstance(text, str) and DELICATE.search(text[:MOST_READ]) is not None


def _strong_rows(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    return _rows(frame, columns, is_strong)


def _rows(frame: pd.DataFrame, columns: Sequence[str], suits: Callable[[object], bool]) -> pd.Series:
    """Return which rows have a text that suits in one of these columns."""
    matches = pd.Series(False, index=frame.index)
    for column in _columns(frame, columns):
        matches |= frame[column].map(suits).astype(bool)
    return matches


def _columns(frame: pd.DataFrame, columns: Sequence[str]) -> Sequence[str]:
    return [name for name in columns if name in frame.columns]
