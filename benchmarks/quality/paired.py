"""Paired differences over seeds and examples, with a bootstrap interval over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 4_000
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """The mean of a - b with its interval; for a loss, below zero means that a is better.

    Attributes:
        mean: over all shared seeds and examples.
        low, high: ends of the interval.
        seeds: how many were shared.
        chance: share of the draws in which a is worse (larger) than b.
    """

    mean: float
    low: float
    high: float
    seeds: int
    chance: float

    @property
    def verdict(self) -> str:
        """better, worse, or open while the interval holds zero; as for a loss."""
        return "better" if self.high < 0 else "worse" if self.low > 0 else "open"


def paired_difference(a: Sequence[np.ndarray], b: Sequence[np.ndarray], seed: int = 0) -> Difference:
    """Return mean and interval of a - b.

    A draw takes seeds with replacement, and examples with replacement, the same ones for every seed: rows differ in
    how hard they are, and runs in how they went; both are chance.

    Args:
        a: one vector of values per seed, (n_examples,) each.
        b: the same of the other side, in the same order of seeds and examples.
        seed: of the draws.
    """
    table = np.stack([np.asarray(x, float) - np.asarray(y, float) for x, y in zip(a, b, strict=True)])
    n_seeds, n_examples = table.shape
    rng = np.random.default_rng(seed)
    means = np.empty(DRAWS)
    for draw in range(DRAWS):
        picked = table[rng.integers(n_seeds, size=n_seeds)].mean(0)
        means[draw] = picked[rng.integers(n_examples, size=n_examples)].mean()
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(float(table.mean()), float(low), float(high), n_seeds, float((means > 0).mean()))
