"""Is one group of runs better than another? The paired difference over shared seeds and examples, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.viz.compare.seed_groups import Group
from dynlora.viz.kit.config_fields import set_values

DRAWS = 2000
"""Draws of the bootstrap."""

FEWEST_SEEDS = 3
"""Common seeds below which nothing is called better or worse: the interval would hold for the examples only."""

BLOCKS = 4000
"""More examples than this are averaged into so many blocks at random; the spread of their mean stays as it is."""


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


def pairs(
    summaries: Mapping[str, Mapping[str, Any]], first: Group, second: Group
) -> tuple[list[tuple[int, str, str]], str]:
    """Return the pairs (seed, run of the first group, run of the second), and why there are no more of them.

    A pair has one seed, one data set with the same settings, and as many rows in both runs. Of several runs with one
    seed the last of the list counts.
    """
    by_seed = [{summaries[run].get("seed"): run for run in group.runs} for group in (first, second)]
    shared = [seed for seed in by_seed[0] if seed in by_seed[1] and isinstance(seed, int)]
    found = [(seed, by_seed[0][seed], by_seed[1][seed]) for seed in sorted(shared)]
    kept = [pair for pair in found if _data(summaries[pair[1]]) == _data(summaries[pair[2]])]
    if not found:
        return [], "The two groups share no seed."
    if len(kept) < len(found):
        return kept, f"{len(found) - len(kept)} of {len(found)} shared seeds have different data or data sizes."
    return kept, ""


def _data(summary: Mapping[str, Any]) -> tuple[Any, ...]:
    settings = set_values({"data": (summary.get("config") or {}).get("data") or {}})
    return summary.get("data"), settings, summary.get("data_size"), summary.get("labels")


def interval(differences: Sequence[np.ndarray], draws: int = DRAWS, level: float = 0.95) -> Difference:
    """Return the mean of paired differences and its bootstrap interval over seeds and examples.

    Each draw takes as many seeds as there are, with replacement, and as many examples, with replacement and the same
    for all seeds; the interval leaves out (1 - level) / 2 of the means on each side. The same differences always give
    the same interval.

    Args:
        differences: one array per seed, one value per example; all of one length.
        draws: of the bootstrap.
        level: of the interval, 0 to 1.
    """
    table = np.stack([np.asarray(one, float) for one in differences])
    seeds, examples = table.shape
    draw = np.random.default_rng(0)
    if examples > BLOCKS:
        blocks = np.array_split(draw.permutation(examples), BLOCKS)
        table = np.stack([table[:, block].mean(axis=1) for block in blocks], axis=1)
    means = np.empty(draws)
    for number in range(draws):
        chosen = table[draw.integers(seeds, size=seeds)].mean(axis=0)
        means[number] = chosen[draw.integers(len(chosen), size=len(chosen))].mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(table.mean()), float(low), float(high), seeds, examples)


def forest(differences: Mapping[int, np.ndarray]) -> pd.DataFrame:
    """Return the difference of each seed and of all together: columns row, mean, low, high, examples.

    The interval of one seed is mean ± 1.96 · deviation / √examples; that of all is `interval`.

    Args:
        differences: one value per example, by seed; not empty, all of one length.
    """
    rows: list[tuple[Any, ...]] = []
    for seed, values in differences.items():
        reach = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        rows.append((f"seed {seed}", float(values.mean()), values.mean() - reach, values.mean() + reach, len(values)))
    whole = interval(list(differences.values()))
    rows.append((f"all, n = {whole.seeds}", whole.mean, whole.low, whole.high, whole.examples))
    return pd.DataFrame(rows, columns=["row", "mean", "low", "high", "examples"])


def same_length(differences: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return the differences of those seeds that have as many finite examples as the first."""
    finite = {seed: values for seed, values in differences.items() if len(values) and np.isfinite(values).all()}
    size = next((len(values) for values in finite.values()), 0)
    return {seed: values for seed, values in finite.items() if len(values) == size}
