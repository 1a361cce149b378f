"""Which column of a table is what: text, second text, label, group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dynlora.errors import DataError

TEXTS = ("text", "sentence", "sentence1", "question1", "question", "premise", "review", "content")
PAIRS = {"sentence1": "sentence2", "question1": "question2", "premise": "hypothesis", "question": "sentence"}
LABELS = ("label", "labels", "class", "target", "category", "sentiment", "y", "score", "rating", "stars")
GROUPS = ("domain", "source", "group", "topic", "language")
"""Names that columns usually have."""


@dataclass(frozen=True)
class Columns:
    """The columns that are learned from; None for one that is not there."""

    text: str | None
    text_pair: str | None
    label: str | None
    group_by: str | None


def resolved(names: Sequence[str], wanted: Columns) -> Columns:
    """Return the columns of a table, those that are left open found by their names.

    Raises:
        DataError: when no column is the text.
    """
    text, pair, group = wanted.text, wanted.text_pair, wanted.group_by
    if text is None and "text" not in names and pair is None:
        text, pair = next((both for both in PAIRS.items() if set(both) <= set(names)), (None, None))
    text = text or next((name for name in TEXTS if name in names and name != pair), None)
    if text is None:
        raise DataError(f"data.text: none of the columns {listed(names)} is named text or sentence; set data.text")
    if group is None:
        group = "domain" if "domain" in names else "length"
    return Columns(text, pair, wanted.label, group)


def listed(names: Sequence[str]) -> str:
    """Return column names for a message: the first twenty, each cut, what cannot be printed left out."""
    shown = ["".join(filter(str.isprintable, name))[:40] for name in names[:20]]
    return ", ".join(shown) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "")


def missing(key: str, name: str, part: str, names: Sequence[str]) -> DataError:
    """Return the error for a column that is not there."""
    return DataError(f"data.{key}={name}: no such column in the {part} data; the columns are {listed(names)}")


def guessed(rows: pd.DataFrame) -> dict[str, str | None]:
    """Return which column is likely to hold what: text, text_pair, label, group_by; None where there is none."""
    names = [str(name) for name in rows.columns]
    text = next((name for name in _named(names, TEXTS)), None) or _longest_text(rows)
    pair = PAIRS.get(text.lower() if text else "")
    others = [name for name in names if name != text]
    label = next((name for name in _named(others, LABELS)), None) or _fewest_values(rows, others)
    return {
        "text": text,
        "text_pair": next((name for name in _named(others, (pair,) if pair else ()) if name != label), None),
        "label": label,
        "group_by": next((name for name in _named(others, GROUPS) if name != label), None),
    }


def _named(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the columns with the wanted names, in the order wanted, whatever their case."""
    lower = {name.lower(): name for name in reversed(names)}
    return [lower[name] for name in wanted if name in lower]


def _longest_text(rows: pd.DataFrame) -> str | None:
    lengths = {
        name: rows[name].astype(str).str.len().mean()
        for name in rows.columns
        if not pd.api.types.is_numeric_dtype(rows[name])
    }
    return max(lengths, key=lengths.__getitem__) if lengths else None


def _fewest_values(rows: pd.DataFrame, names: Sequence[str]) -> str | None:
    counts = {name: rows[name].astype(str).nunique() for name in names}
    several = {name: count for name, count in counts.items() if count > 1} or counts
    return min(several, key=several.__getitem__) if several else None
