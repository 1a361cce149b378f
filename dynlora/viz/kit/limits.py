"""Between which numbers a metric can be, so that no axis shows what cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SHARES = (
    "accuracy",
    "f1",
    "macro_f1",
    "precision",
    "recall",
    "ece",
    "brier",
    "disagreement",
    "token_accuracy",
    "exact_match",
)
CORRELATIONS = ("matthews", "pearson", "spearman")
FROM_ZERO = ("loss", "mse", "mae", "rmse", "mean_squared_error")
FROM_ONE = ("perplexity",)
OWN_SCALE = (*FROM_ONE, *FROM_ZERO)
"""Metrics without an upper end: on one axis with fractions they would flatten them."""


def limits(metric: str) -> tuple[float | None, float | None]:
    """Return the least and the greatest value that a metric can have; None where there is no such value."""
    name = metric.split(" (")[0].strip().lower().removesuffix(" correlation").replace(" ", "_")
    if name in SHARES:
        return 0.0, 1.0
    if name in CORRELATIONS:
        return -1.0, 1.0
    if name in FROM_ONE:
        return 1.0, None
    return (0.0, None) if name in FROM_ZERO else (None, None)


def axis_within(*metrics: str) -> dict[str, Any]:
    """Return the settings of a linear axis that keep plotly's own range within what these metrics can be."""
    found = [limits(metric) for metric in metrics]
    low, high = _outermost((one[0] for one in found), min), _outermost((one[1] for one in found), max)
    clips = {name: value for name, value in (("clipmin", low), ("clipmax", high)) if value is not None}
    return {"autorangeoptions": clips} if clips else {}


def _outermost(values: Iterable[float | None], pick: Any) -> float | None:
    known = list(values)
    return None if not known or None in known else pick(known)
