"""What frames give, under the types it has: pandas-stubs know no more of a column's name or an index than Hashable."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame whose columns are named by text."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def at_highest(values: pd.Series) -> Any:
    """Return where in its index a series is highest, for `loc`; the first of equals, and of gaps alone the first."""
    return values.index[0] if values.isna().all() else values.idxmax()


def at_lowest(values: pd.Series) -> Any:
    """Return where in its index a series is lowest, for `loc`; the first of equals, and of gaps alone the first."""
    return values.index[0] if values.isna().all() else values.idxmin()


SMOOTHING = {"none": 0.0, "usual": 1 / 15, "strong": 1 / 5}
"""How much of a line an exponential mean covers, by name."""


def smoothed(values: pd.Series, smoothing: str = "usual") -> pd.Series:
    """Return an exponential mean over a fraction of the points, at least three of them; see `SMOOTHING`."""
    share = SMOOTHING[smoothing]
    return values.ewm(span=max(3, len(values) * share), ignore_na=True).mean() if share else values


ROUNDED = 2e-6
"""What a rounded number of single precision may lack to it."""

MOST_PLACES, SMALL = 4, 0.01
"""Most decimal places of a column, and the size below which a column shows significant digits instead."""


def number_format(values: pd.Series) -> str:
    """Return the one format of a column of numbers: whole with thousands apart, else with equally many places."""
    known = values.to_numpy(float, na_value=np.nan)
    known = known[np.isfinite(known)]
    if not (known % 1).any():
        return "localized"
    if np.median(np.abs(known[known != 0])) < SMALL:
        return "%.3g"
    places = next(
        (n for n in range(1, MOST_PLACES) if np.allclose(known, known.round(n), rtol=0, atol=ROUNDED)), MOST_PLACES
    )
    return f"%.{places}f"


_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV; text that would start a formula gets a leading apostrophe, numbers stay."""
    safe = pd.DataFrame({position: frame.iloc[:, position].map(_plain) for position in range(frame.shape[1])})
    safe.columns = pd.Index([_plain(column) for column in frame.columns])
    return safe.to_csv(index=False)


def _plain(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
