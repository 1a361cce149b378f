"""Is one group of runs better than another? The paired difference over shared seeds and examples, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.config_fields import set_values
from dynlora.analysis.seed_groups import Group
from dynlora.analysis.stats import LEVEL, Difference, normal_reach, paired_difference, t_reach

FEWEST_SEEDS = 3
"""Common seeds below which nothing is called better or worse: the interval would hold for the examples only."""


def same_task(runs: pd.DataFrame, summary: Mapping[str, Any]) -> pd.DataFrame:
    """Return the other runs on the model and data of a run, of its length, in the order given.

    Args:
        runs: as `queries.list_runs` returns them.
        summary: of the run, as `queries.run_summary` returns it.
    """
    alike = runs[runs["id"] != summary["id"]]
    for column in ("model", "data", "max_steps"):
        alike = alike[alike[column] == summary.get(column)]
    return alike


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


def is_significant(rows: Sequence[np.ndarray], difference: Difference, level: float = LEVEL) -> bool:
    """Say whether enough seeds were paired, and both the bootstrap interval and that of t over the seeds exclude 0.

    Args:
        rows: differences by example, one array per seed.
        difference: of these, as `stats.paired_difference` returns it: alone it is too narrow for few seeds.
        level: of the t interval, 0 to 1.
    """
    is_known = len(rows) >= FEWEST_SEEDS and difference.excludes_0
    return is_known and t_reach([float(values.mean()) for values in rows], level) < abs(difference.mean)


def forest(differences: Mapping[int, np.ndarray]) -> pd.DataFrame:
    """Return the difference of each seed and of all together: columns row, mean, low, high, examples.

    The interval of one seed is `normal_reach`; that of all `paired_difference`.

    Args:
        differences: one value per example, by seed; not empty, all of one length.
    """
    rows: list[tuple[Any, ...]] = []
    for seed, values in differences.items():
        reach = normal_reach(values)
        rows.append((f"seed {seed}", float(values.mean()), values.mean() - reach, values.mean() + reach, len(values)))
    whole = paired_difference(list(differences.values()))
    rows.append((f"all, n = {whole.seeds}", whole.mean, whole.low, whole.high, whole.examples))
    return pd.DataFrame(rows, columns=["row", "mean", "low", "high", "examples"])


def same_length(differences: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return the differences of those seeds that have as many finite examples as the first."""
    finite = {seed: values for seed, values in differences.items() if len(values) and np.isfinite(values).all()}
    size = next((len(values) for values in finite.values()), 0)
    return {seed: values for seed, values in finite.items() if len(values) == size}
