"""Frames as CSV text that a spreadsheet does not mistake for formulas."""

from __future__ import annotations

import pandas as pd

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV; text that would start a formula gets a leading apostrophe, numbers stay."""
    safe = pd.DataFrame({position: frame.iloc[:, position].map(_plain) for position in range(frame.shape[1])})
    safe.columns = pd.Index([_plain(column) for column in frame.columns])
    return safe.to_csv(index=False)


def _plain(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
