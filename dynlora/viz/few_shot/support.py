"""The examples of a new task that a person gives: pasted, or as a small file; and the answers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dynlora.data_files.reader import sent_table
from dynlora.errors import ConfigError
from dynlora.text import listed, one_line, plural

MOST_ROWS = 500
"""Examples at most; a class needs a few."""

MOST_TEXTS = 100
"""Texts to classify at most."""

Support = list[list[str]]
"""(text, label) pairs, as the child takes them."""


def pasted(words: str) -> Support:
    """Return the examples of pasted lines, each `label: text`.

    Raises:
        ConfigError: naming the first line that is none.
    """
    found: Support = []
    for place, line in enumerate(words.splitlines(), 1):
        if not line.strip():
            continue
        label, colon, text = line.partition(":")
        if not colon or not label.strip() or not text.strip():
            raise ConfigError(f"line {place}: write the label, a colon and the text, such as `complaint: too late`")
        found.append([text.strip(), label.strip()])
    return _checked(found)


def of_file(name: str, data: bytes) -> Support:
    """Return the examples of a small file with columns text and label, read as `dynlora fewshot --support` reads it.

    Raises:
        ConfigError: when it lacks a column, or its examples cannot be used.
        DataError: when it cannot be read.
    """
    table = sent_table(name, data)
    columns = {column.strip().lower(): column for column in table.columns}
    missing = [column for column in ("text", "label") if column not in columns]
    if missing:
        shown = listed([one_line(column, 40) for column in table.columns], 20)
        raise ConfigError(
            f"{one_line(name, 60)}: has no column {missing[0]}; it has {shown}; rename the two that are meant to text "
            "and label"
        )
    pairs = zip(table.values(columns["text"]), table.values(columns["label"]), strict=True)
    return _checked([["" if cell is None else str(cell).strip() for cell in pair] for pair in pairs])


def _checked(found: Support) -> Support:
    """Return examples that can be used.

    Raises:
        ConfigError: when there are too many, one is blank, or they are of one class.
    """
    if len(found) > MOST_ROWS:
        raise ConfigError(f"{plural(len(found), 'example')}: give at most {MOST_ROWS}; a few per class are enough")
    if not all(text and label for text, label in found):
        raise ConfigError("a text or a label is empty: fill it in, or remove the row")
    labels = {label for _, label in found}
    if len(labels) < 2:
        raise ConfigError(f"the examples are of {len(labels)} class: give examples of two classes or more")
    return found


def asked_texts(words: str) -> list[str]:
    """Return the texts to classify, one per line.

    Raises:
        ConfigError: when there are too many.
    """
    found = [line.strip() for line in words.splitlines() if line.strip()]
    if len(found) > MOST_TEXTS:
        raise ConfigError(f"{plural(len(found), 'text')}: give at most {MOST_TEXTS}; the command takes more")
    return found


def answers(found: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the answers as a table: text, label, distance to each class, nearest example and its label."""
    rows = [
        {
            "text": one["text"],
            "label": one["label"],
            "nearest example": one["nearest"]["text"],
            "its label": one["nearest"]["label"],
            **{f"distance to {label}": value for label, value in one["distances"].items()},
        }
        for one in found
    ]
    return pd.DataFrame(rows)
