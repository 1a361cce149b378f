"""Intervals of paired differences over seeds and examples."""

from __future__ import annotations

import numpy as np


def interval(differences: np.ndarray) -> list[float]:
    """Return mean and 95 % interval of paired differences, (seeds, rows): seeds and rows are drawn again, both."""
    draw = np.random.default_rng(0)
    seeds, rows = differences.shape
    means = [
        differences[np.ix_(draw.integers(0, seeds, seeds), draw.integers(0, rows, rows))].mean() for _ in range(4000)
    ]
    return [float(differences.mean()), *map(float, np.percentile(means, (2.5, 97.5)))]
