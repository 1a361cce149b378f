"""Every 95 % interval, and rank correlation: numpy in, numbers out.

An interval of fewer draws than it needs is (NaN, NaN), unless a function says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
"""Of every interval."""

Z = 1.959963984540054
"""Standard normal quantile of (1 + LEVEL) / 2."""

DRAWS = 2000
"""Resamples of a bootstrap."""

BLOCKS = 4000
"""More examples than this are averaged into so many blocks at random; the spread of their mean stays as it is."""


FEWEST_PAIRS = 6
"""Pairs below which an interval of their mean says nothing: all have one sign by chance in over 1 of 20 cases."""


def side_of_0(low: float, high: float, n: int) -> Literal["above", "below", "unclear", "few"]:
    """Return on which side of 0 the interval of a difference is; `few` where that rests on too few pairs.

    Args:
        low: lower end of the interval.
        high: upper end.
        n: pairs that it is over.
    """
    if n < FEWEST_PAIRS:
        return "few"
    return "above" if low > 0 else "below" if high < 0 else "unclear"


@dataclass(frozen=True)
class Difference:
    """A mean difference with its interval.

    Attributes:
        mean: of the differences, over seeds and examples.
        low: lower end of the interval.
        high: upper end.
        seeds: number of pairs of runs.
        examples: examples of a pair.
    """

    mean: float
    low: float
    high: float
    seeds: int
    examples: int

    @property
    def excludes_0(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def normal_reach(values: np.ndarray) -> float:
    """Return half the width of the normal interval of a mean, Z · s / √n; NaN for fewer than two values, (n,)."""
    return Z * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def t_reach(values: Sequence[float] | np.ndarray, level: float = LEVEL, n: int | None = None) -> float:
    """Return half the width of Student's interval of a mean: t of (1 + level) / 2 with n - 1 degrees · s / √n.

    Args:
        values: one for each draw, at least two.
        level: of the interval, 0 to 1.
        n: draws that there would be, of the same deviation; by default as many as there are.
    """
    from scipy.special import stdtrit  # takes longer to load than all else here

    n = len(values) if n is None else n
    return float(stdtrit(n - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(n))


def share_interval(right: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval (1927) of a fraction, right of n: (r + z²/2 ± z √(r (n - r) / n + z²/4)) / (n + z²)."""
    if not n:
        return math.nan, math.nan
    centre, reach = right + Z * Z / 2, Z * math.sqrt(right * (n - right) / n + Z * Z / 4)
    return max(0.0, (centre - reach) / (n + Z * Z)), min(1.0, (centre + reach) / (n + Z * Z))


def paired_share_interval(better: int, worse: int, n: int) -> tuple[float, float]:
    """Return the interval of a difference of two shares over the same n problems.

    Agresti and Min's (2005): a Wald interval with half a problem added to each of the four cells, which has width also
    where both solve the same problems: d = (better - worse) / (n + 2), and its variance is
    (better + worse + 1 - (n + 2) d²) / (n + 2)².

    Args:
        better: problems that only the first one solves.
        worse: problems that only the second one solves.
        n: problems, at least one.
    """
    whole = n + 2
    centre = (better - worse) / whole
    reach = Z * math.sqrt(max(0.0, better + worse + 1 - whole * centre * centre)) / whole
    return max(-1.0, centre - reach), min(1.0, centre + reach)


def per_token(sums: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Return the mean over tokens of sums over texts, with its interval over the texts: mean, low, high, texts, tokens.

    Tokens of one text are not independent, texts are: mean = Σ s_i / Σ n_i, and its variance is that of a ratio
    (Cochran, 1977): n / (n - 1) · Σ (s_i - mean · n_i)² / (Σ n_i)². Of a single text, low and high are the mean.

    Args:
        sums: over the tokens of each text, (n,); of a paired difference, sums of differences.
        counts: tokens of each text, (n,).
    """
    tokens, texts = float(counts.sum()), len(sums)
    mean = float(sums.sum()) / max(1.0, tokens)
    residual = float(np.square(sums - mean * counts).sum())
    reach = Z * math.sqrt(residual * texts / (texts - 1)) / max(1.0, tokens) if texts > 1 else 0.0
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "texts": texts, "tokens": tokens}


def percentile_interval(resampled: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval (Efron, 1979) of a statistic of resamples, (draws,)."""
    if not len(resampled):
        return math.nan, math.nan
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(low), float(high)


def basic_interval(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """Return the basic bootstrap interval of a statistic that resampling biases: the percentiles mirrored at `value`.

    Args:
        value: of the sample itself.
        resampled: of its resamples, (draws,).
    """
    low, high = percentile_interval(resampled)
    return 2 * value - high, 2 * value - low


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of values, (n,), over `DRAWS` resamples."""
    if not len(values):
        return math.nan, math.nan
    weights = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), DRAWS)
    return percentile_interval(weights @ values / len(values))


def paired_difference(differences: Sequence[np.ndarray], draws: int = DRAWS) -> Difference:
    """Return the mean of paired differences and its bootstrap interval over seeds and examples.

    Each draw takes as many seeds as there are, with replacement, and as many examples, with replacement and the same
    for all seeds. The same differences always give the same interval. It is too narrow for few seeds: see `t_reach`.

    Args:
        differences: one array per seed, one value per example; all of one length.
        draws: of the bootstrap.
    """
    table = np.stack([np.asarray(row, float) for row in differences])
    seeds, examples = table.shape
    if examples > BLOCKS:
        blocks = np.array_split(np.random.default_rng(0).permutation(examples), BLOCKS)
        table = np.stack([table[:, block].mean(axis=1) for block in blocks], axis=1)
    return Difference(float(table.mean()), *_resampled(table.tobytes(), seeds, examples, draws), seeds, examples)


@lru_cache(maxsize=256)
def _resampled(table: bytes, seeds: int, examples: int, draws: int) -> tuple[float, float]:
    """Return the bootstrap interval of `paired_difference`; pages that are drawn again ask for the same ones.

    Args:
        table: mean differences, seeds by blocks of examples, or by examples where there are few.
        seeds: rows of the table.
        examples: in its blocks.
        draws: of the bootstrap.
    """
    rows, draw = np.frombuffer(table).reshape(seeds, -1), np.random.default_rng(0)
    if examples > BLOCKS:
        draw.permutation(examples)  # which made the blocks
    means = np.empty(draws)
    for number in range(draws):
        chosen = rows[draw.integers(seeds, size=seeds)].mean(axis=0)
        means[number] = chosen[draw.integers(len(chosen), size=len(chosen))].mean()
    return percentile_interval(means)


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Return the rank correlation of two columns, (n,) each; NaN where one does not vary or below 3 pairs."""
    rows = np.stack([np.asarray(first, float), np.asarray(second, float)])
    rows = rows[:, ~np.isnan(rows).any(axis=0)]
    correlations = _rank_correlations(rows[:1], rows[1:]) if rows.shape[1] > 2 else np.empty(0)
    return float(correlations[0]) if len(correlations) else math.nan


def spearman_interval(first: np.ndarray, second: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the rank correlation over pairs, (n,) each and finite.

    Resamples in which one side does not vary are left out.
    """
    chosen = np.random.default_rng(0).integers(0, len(first), (draws, len(first)))
    return percentile_interval(_rank_correlations(first[chosen], second[chosen]))


def _rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each row with that of the other, (rows, n) each, without rows that do not vary."""
    a, b = (np.apply_along_axis(_ranks, 1, rows) - (rows.shape[1] + 1) / 2 for rows in (first, second))
    size = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return (a * b).sum(1)[size > 0] / size[size > 0]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value from 1, equal values the mean of theirs, (n,)."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2
