"""The ranks of a run as a small picture: layers by kinds of modules, stronger colour for a higher rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dynlora.viz.kit import rank_picture

WIDE, NARROW, LABELLED = 44, 22, 9
"""Pixels of a column with its name and without, and how many columns have names."""

HIGH, ALL, GAP, LEFT, FOOT = 19, 190, 2, 24, 16
"""Pixels of a row, of all rows at most, between cells, and beside and below them."""


def rank_grid(ranks: Mapping[str, int], modules: pd.DataFrame) -> dict[str, Any] | None:
    """Return the picture as cells and labels, in pixels; None where no module with a rank is in a layer.

    Args:
        ranks: last rank of each module, by name.
        modules: as `kit.modules.described` returns them.
    """
    pattern = rank_picture.pattern(ranks, modules) if ranks and len(modules) else pd.DataFrame()
    if pattern.empty:
        return None
    values = pattern.to_numpy(float)
    rows, columns = values.shape
    wide = WIDE if columns <= LABELLED else NARROW
    high = max(2.0, min(HIGH, ALL / rows))
    gap = GAP if high > 2 * GAP else 0.5
    most = max(1.0, float(np.nanmax(values)))
    places = [(row, column) for row in range(rows) for column in range(columns) if np.isfinite(values[row, column])]
    cells = [
        {
            "x": LEFT + column * wide, "y": round(row * high, 2), "width": wide - gap, "height": round(high - gap, 2),
            "share": round(values[row, column] / most, 3),
            "words": f"layer {pattern.index[row]:.0f}, {pattern.columns[column]}: rank {values[row, column]:.0f}",
        }
        for row, column in places
    ]  # fmt: skip
    known = values[np.isfinite(values)]
    return {
        "cells": cells,
        "labels": [*_layers(pattern, high), *(_kinds(pattern, wide, rows * high) if wide == WIDE else [])],
        "width": LEFT + columns * wide,
        "height": round(rows * high + FOOT),
        "title": f"Rank by layer and kind of module, {known.min():.0f} to {known.max():.0f}",
    }


def _layers(pattern: pd.DataFrame, high: float) -> list[dict[str, Any]]:
    """Return the names of the first and the last layer."""
    ends = {0, len(pattern) - 1}
    return [
        {"x": LEFT - 6, "y": round((row + 0.5) * high + 3.5, 2), "anchor": "end", "words": f"{pattern.index[row]:.0f}"}
        for row in sorted(ends)
    ]


def _kinds(pattern: pd.DataFrame, wide: int, bottom: float) -> list[dict[str, Any]]:
    """Return the names of the kinds of modules, below their columns."""
    return [
        {"x": LEFT + (column + 0.5) * wide - 1, "y": round(bottom + 11, 2), "anchor": "middle", "words": str(name)}
        for column, name in enumerate(pattern.columns)
    ]
