"""How strongly each module's adapter acts on groups of inputs, and how much of that moves between two groups.

The profile of a group is the mean effect of each module over its examples, as a fraction of the sum over modules. What
moves between two groups is half the sum of the absolute differences of their profiles, from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dynlora.analysis.stats import DRAWS, LEVEL, basic_interval

LEAST_EXAMPLES = 20
"""Examples below which a group is never named in a sentence: one of them would decide too much."""

PERMUTATIONS = 500


def joined(groups: Sequence[object], order: Sequence[str]) -> list[str]:
    """Return the group of each example, those of fewer than `LEAST_EXAMPLES` joined with the smaller neighbour.

    Args:
        groups: of each example, by name.
        order: names of the groups, neighbours beside each other; others come last.
    """
    names = [str(group) for group in groups]
    counts = {name: names.count(name) for name in dict.fromkeys([*order, *sorted(set(names))]) if name in names}
    parts, sizes = [[name] for name in counts], list(counts.values())
    while len(parts) > 1 and min(sizes) < LEAST_EXAMPLES:
        place = int(np.argmin(sizes))
        other = min((one for one in (place - 1, place + 1) if 0 <= one < len(parts)), key=lambda one: sizes[one])
        first, second = sorted((place, other))
        parts[first : second + 1] = [parts[first] + parts[second]]
        sizes[first : second + 1] = [sizes[first] + sizes[second]]
    title = {name: _title(part) for part in parts for name in part}
    return [title[name] for name in names]


def _title(names: Sequence[str]) -> str:
    """Return what groups that were joined are called."""
    return " + ".join(names) if len(names) < 3 else f"{names[0]} + {len(names) - 1} more"


def by_group(effects: np.ndarray, groups: Sequence[str]) -> pd.DataFrame:
    """Return the mean effect of each group (rows, in order of appearance) and module as recorded (columns)."""
    return pd.DataFrame(effects).groupby(np.array(groups, dtype=object), sort=False).mean()


@dataclass(frozen=True)
class Moved:
    """How much of the adapter's effect moves from one group to another.

    Attributes:
        first, second: names of the groups.
        share: of the effect, 0 to 1.
        low, high: 95 % bootstrap interval over the examples of both.
        shuffled: what no two groups exceed in 95 % of the cases once the groups are shuffled over all examples.
        gain: profile of `second` minus that of `first`, by module as recorded.
        n: examples of each.
    """

    first: str
    second: str
    share: float
    low: float
    high: float
    shuffled: float
    gain: np.ndarray
    n: tuple[int, int]

    @property
    def is_beyond_chance(self) -> bool:
        """Whether more moves than between groups of no meaning."""
        return self.share > self.shuffled


def moved(
    effects: np.ndarray, groups: Sequence[str], pair: tuple[str, str] | None = None, seed: int = 0
) -> Moved | None:
    """Return what moves between two groups; None where there are fewer, or no module acts.

    Args:
        effects: (n_examples, n_modules).
        groups: of each example.
        pair: of groups; None takes the two that differ most.
        seed: of the shuffles and resamples.
    """
    values = np.nan_to_num(np.asarray(effects, float))
    names = list(dict.fromkeys(groups))
    if len(names) < 2 or not (pd.DataFrame(values).groupby(np.array(groups, dtype=object)).sum().sum(axis=1) > 0).all():
        return None
    codes = np.array([names.index(group) for group in groups])
    member = np.eye(len(names))[codes]
    profiles = _profiles(member.T @ values)
    between = _between(profiles)
    first, second = (
        divmod(int(between.argmax()), len(names))
        if pair is None or not set(pair) <= set(names)
        else (names.index(pair[0]), names.index(pair[1]))
    )
    rng = np.random.default_rng(seed)
    chance = [_between(_profiles(rng.permutation(member).T @ values)).max() for _ in range(PERMUTATIONS)]
    ends = [_resampled(values[codes == one], rng) for one in (first, second)]
    share = float(between[first, second])
    low, high = basic_interval(share, np.abs(ends[0] - ends[1]).sum(1) / 2)
    return Moved(
        names[first],
        names[second],
        share,
        max(0.0, low),
        min(1.0, high),
        float(np.quantile(chance, LEVEL)),
        profiles[second] - profiles[first],
        (int((codes == first).sum()), int((codes == second).sum())),
    )


def _profiles(sums: np.ndarray) -> np.ndarray:
    """Return rows over their sums."""
    return sums / np.maximum(sums.sum(-1, keepdims=True), np.finfo(float).tiny)


def _between(profiles: np.ndarray) -> np.ndarray:
    """Return what moves between each two of n profiles, (n, n)."""
    return np.abs(profiles[:, None] - profiles[None]).sum(-1) / 2


def _resampled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the profile of each bootstrap resample of examples, (draws, n_modules)."""
    weights = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), DRAWS)
    return _profiles(weights @ values)
