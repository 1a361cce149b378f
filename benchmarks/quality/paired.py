"""Paired differences over seeds and examples, with two intervals over both: a bootstrap's and Student's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

DRAWS = 4_000
LEVEL = 0.95
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Difference:
    """The mean of a - b with two intervals; for a loss, below zero means that a is better.

    Drawing few seeds again and again says too little of how far seeds lie apart: over three or five of them the
    bootstrap's 95 % interval holds the truth in some 75 or 85 % of the cases. The wide interval is Student's, of the
    variances over seeds and over rows. A verdict asks both, and at least three seeds.

    Attributes:
        mean: over all shared seeds and examples.
        low, high: ends of the bootstrap's interval.
        wide_low, wide_high: ends of Student's interval; infinite with one seed.
        seeds: how many were shared.
        chance: share of the draws in which a is worse (larger) than b.
    """

    mean: float
    low: float
    high: float
    wide_low: float
    wide_high: float
    seeds: int
    chance: float

    @property
    def verdict(self) -> str:
        """better, worse, or open while an interval holds zero or seeds are fewer than three; as for a loss."""
        low, high = min(self.low, self.wide_low), max(self.high, self.wide_high)
        if self.seeds < ENOUGH_SEEDS or low <= 0 <= high:
            return "open"
        return "better" if high < 0 else "worse"

    @property
    def verdict_of_gain(self) -> str:
        """The verdict where more is better."""
        return {"better": "worse", "worse": "better"}.get(self.verdict, "open")


def paired_difference(a: Sequence[np.ndarray], b: Sequence[np.ndarray], seed: int = 0) -> Difference:
    """Return mean and intervals of a - b.

    A draw takes seeds with replacement, and examples with replacement, the same ones for every seed: rows differ in
    how hard they are, and runs in how they went; both are chance.

    Args:
        a: one vector of values per seed, (n_examples,) each.
        b: the same of the other side, in the same order of seeds and examples.
        seed: of the draws.
    """
    table = np.stack([np.asarray(x, float) - np.asarray(y, float) for x, y in zip(a, b, strict=True)])
    n_seeds, n_examples = table.shape
    of_seeds, of_examples = _drawn(n_seeds, n_examples, seed)
    means = (of_seeds * (of_examples.astype(float) @ table.T)).sum(1) / table.size
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    mean, half = float(table.mean()), half_width(table)
    chance = float((means > 0).mean())
    return Difference(mean, float(low), float(high), mean - half, mean + half, n_seeds, chance)


@lru_cache(maxsize=4)
def _drawn(n_seeds: int, n_examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each draw took each seed, (draws, n_seeds), and each example, (draws, n_examples).

    Tables of one shape share their draws, so that a difference is one product. 4,000 draws of 6,000 rows take 48 MB.
    """
    rng = np.random.default_rng(seed)
    of_seeds, of_examples = np.empty((DRAWS, n_seeds), np.uint16), np.empty((DRAWS, n_examples), np.uint16)
    for draw in range(DRAWS):
        of_seeds[draw] = np.bincount(rng.integers(n_seeds, size=n_seeds), minlength=n_seeds)
        of_examples[draw] = np.bincount(rng.integers(n_examples, size=n_examples), minlength=n_examples)
    return of_seeds, of_examples


def half_width(table: np.ndarray) -> float:
    """Return half of Student's interval of a table's mean, infinite where it has one row or one column.

    Formula: t · sqrt(s + e), s = var(means of seeds) / n_seeds, e = var(means of examples) / n_examples, with the
    degrees of freedom of Satterthwaite, (s + e)² / (s² / (n_seeds - 1) + e² / (n_examples - 1)). Noise of single
    answers is in both terms, so the interval is rather too wide than too narrow.

    Args:
        table: differences, (n_seeds, n_examples).
    """
    n_seeds, n_examples = table.shape
    if min(n_seeds, n_examples) < 2:
        return math.inf
    over_seeds = float(table.mean(1).var(ddof=1)) / n_seeds
    over_examples = float(table.mean(0).var(ddof=1)) / n_examples
    both = over_seeds + over_examples
    if not both:
        return 0.0
    freedom = both**2 / (over_seeds**2 / (n_seeds - 1) + over_examples**2 / (n_examples - 1))
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(both)
