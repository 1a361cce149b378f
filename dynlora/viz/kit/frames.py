"""What frames give, under the types it has: pandas-stubs know no more of a column's name or an index than Hashable."""

from __future__ import annotations

from typing import Any, cast

import pandas as pd


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame whose columns are named by text."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def at_highest(values: pd.Series) -> Any:
    """Return where in its index a series is highest, for `loc`; the first of equals."""
    return values.idxmax()


def at_lowest(values: pd.Series) -> Any:
    """Return where in its index a series is lowest, for `loc`; the first of equals."""
    return values.idxmin()
