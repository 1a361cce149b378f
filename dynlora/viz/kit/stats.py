"""Statistics that several features use."""

from __future__ import annotations

import pandas as pd


def spearman(first: pd.Series, second: pd.Series) -> float:
    """Return the rank correlation of two columns, NaN when one of them does not vary."""
    rows = pd.DataFrame({"a": first, "b": second}).dropna().rank()
    if len(rows) < 3 or rows["a"].nunique() < 2 or rows["b"].nunique() < 2:
        return float("nan")
    return float(rows["a"].corr(rows["b"]))
