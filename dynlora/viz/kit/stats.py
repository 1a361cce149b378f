"""Statistics that several features use."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

LOW_IS_GOOD = ("loss", "perplexity", "mse", "mae", "rmse", "ece", "brier")
"""Metrics of which less is better."""


def spearman(first: pd.Series, second: pd.Series) -> float:
    """Return the rank correlation of two columns, NaN when one of them does not vary."""
    rows = pd.DataFrame({"a": first, "b": second}).dropna().rank()
    if len(rows) < 3 or rows["a"].nunique() < 2 or rows["b"].nunique() < 2:
        return float("nan")
    return float(rows["a"].corr(rows["b"]))


def t_reach(values: Sequence[float], level: float, n: int | None = None) -> float:
    """Return half the width of the interval of a mean: t of (1 + level) / 2 with n - 1 degrees · deviation / √n.

    Args:
        values: one for each draw, at least two.
        level: of the interval, 0 to 1.
        n: draws that there would be, of the same deviation; as many as there are unless told otherwise.
    """
    n = len(values) if n is None else n
    return float(stdtrit(n - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(n))


def share_interval(right: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n answers, Wilson's: it stays within 0 to 1."""
    z = float(ndtri(0.975))
    centre, spread = right + z * z / 2, z * math.sqrt(right * (of - right) / of + z * z / 4)
    return (centre - spread) / (of + z * z), (centre + spread) / (of + z * z)
