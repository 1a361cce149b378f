"""What adapters and gates do to groups of inputs: how strongly each module acts, what moves, what reacting gains.

The profile of a group is the mean effect of each module over its examples, as a fraction of the sum over modules. What
moves between two groups is half the sum of the absolute differences of their profiles, from 0 to 1.

Differences of gates between groups are an effect size against a permutation baseline. The gain of reacting is recorded
at the end of a run: held-out loss with each gate at its mean, minus the loss with the gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.stats import DRAWS, LEVEL, basic_interval
from dynlora.store.meta import finite, text, whole
from dynlora.text import metric_words, minus, one_line, signed

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


LEAST_SPREAD = 1e-4
"""Gates that differ less than this over all examples are equal for all purposes: rounding, no finding."""


@dataclass(frozen=True)
class GateEffect:
    """How much of each gate's variation over examples the groups explain.

    Attributes:
        share: by module, variance between groups / variance over all examples (eta squared), 0 to 1.
        baseline: what the largest share over all modules stays below in 95 % of random regroupings.
        examples: examples with a group.
        groups: groups among them.
    """

    share: np.ndarray
    baseline: float
    examples: int
    groups: int

    @property
    def is_significant(self) -> np.ndarray:
        """By module, whether the effect is beyond chance."""
        return self.share > self.baseline


def gate_effect(gates: np.ndarray, group: Sequence[object], seed: int = 0) -> GateEffect | None:
    """Return how much the groups explain of each gate, None when the groups do not differ.

    The groups are shuffled over the examples 500 times; the largest share over all modules of each shuffle makes the
    baseline, so that it holds for all modules at once.

    Args:
        gates: (n_examples, n_modules).
        group: of each example; None for none.
        seed: of the shuffles.
    """
    codes = pd.Categorical(pd.Series(list(group), dtype=object)).codes
    known = (codes >= 0) & np.isfinite(gates).all(axis=1)
    values, codes = gates[known].astype(float), codes[known]
    names, codes = np.unique(codes, return_inverse=True)
    if len(names) < 2 or len(values) <= len(names) or not values.shape[1]:
        return None
    values = np.where(np.ptp(values, axis=0) < LEAST_SPREAD, 0.0, values - values.mean(axis=0))
    total = np.square(values).sum(axis=0)
    member = np.eye(len(names))[codes]
    rng = np.random.default_rng(seed)
    largest = [float(_explained(rng.permutation(member), values, total).max()) for _ in range(PERMUTATIONS)]
    share = _explained(member, values, total)
    return GateEffect(share, float(np.quantile(largest, LEVEL)), len(values), len(names))


CONSTANT = 0.005
"""Nats: where the whole interval is nearer to 0 than this, gates may as well be constants."""

REACTION = "gate_reaction"
"""Kind of the event that holds what reacting to the input gains."""


@dataclass(frozen=True)
class Reaction:
    """What reacting to the input lowers the held-out loss by, in the unit of the loss.

    Attributes:
        n: examples it was measured on.
        lowers_by: mean over them of the loss with each gate at its mean minus the loss with the gates.
        low, high: ends of its 95 % interval; None of one example.
        group: of inputs; empty for all.
    """

    n: int
    lowers_by: float
    low: float | None
    high: float | None
    group: str = ""


def reactions(events: pd.DataFrame) -> list[Reaction]:
    """Return what the last event of that kind says, all examples first, then the groups; what is unreadable is left."""
    rows = events[events["kind"] == REACTION]
    payload = None if rows.empty else rows["payload"].iloc[-1]
    if not isinstance(payload, Mapping):
        return []
    groups = payload.get("groups")
    parts = [payload, *(groups if isinstance(groups, list) else [])]
    read = [_reaction(part, is_group=place > 0) for place, part in enumerate(parts) if isinstance(part, Mapping)]
    return [one for one in read if one is not None] if read and read[0] is not None else []


def _reaction(part: Mapping[str, Any], *, is_group: bool) -> Reaction | None:
    n, mean, name = whole(part.get("n")), finite(part.get("lowers_by")), text(part.get("group")) if is_group else ""
    if n is None or n < 1 or mean is None or name is None:
        return None
    return Reaction(n, mean, finite(part.get("low")), finite(part.get("high")), one_line(name, 200))


def reaction_conclusion(reaction: Reaction, unit: str = "nats") -> str:
    """Return what reacting to the input gains in a sentence, with its interval and what follows."""
    mean, low, high = reaction.lowers_by, reaction.low, reaction.high
    verb = "lowers" if mean >= 0 else "raises"
    effect = f"Reacting to the input {verb} the held-out loss by {_nats(abs(mean))} {unit}"
    if low is None or high is None:
        return f"{effect} (n = {reaction.n:,}; too few examples for an interval)."
    ends = (low, high) if mean >= 0 else (-high, -low)
    is_clear = low * high > 0  # then neither end may read as 0
    digits = 4 if is_clear and min(abs(low), abs(high)) < 0.0005 else 3
    low_words, high_words = (_nats(end, digits) for end in ends)
    return f"{effect} (95 % CI {low_words} to {high_words}, n = {reaction.n:,}): {_verdict(low, high)}."


def _nats(value: float, digits: int = 3) -> str:
    """Return a difference of losses in words; what rounds to nothing has no sign."""
    return minus(f"{round(value, digits) + 0.0:.{digits}f}")


def _verdict(low: float, high: float) -> str:
    """Return what an interval of a reaction shows."""
    if max(abs(low), abs(high)) <= CONSTANT:
        return "gates act as constants"
    if low <= 0 <= high:
        return "no effect of reacting is shown"
    return "the gates pay for themselves" if low > 0 else "constants would do better"


def _explained(member: np.ndarray, values: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return variance between groups / total variance, by column; centred values, one row of `member` per example."""
    sums = member.T @ values
    between = (np.square(sums) / member.sum(axis=0)[:, None]).sum(axis=0)
    return np.divide(between, total, out=np.zeros_like(between), where=total > 0)


def served(
    gates: pd.DataFrame, modules: pd.DataFrame, effect: GateEffect | None, scores: pd.DataFrame, metric: str | None
) -> pd.DataFrame:
    """Return one row per group: its results, and the modules whose gates are larger or smaller for it beyond chance.

    Args:
        gates: one row per group, one column per module as recorded; no rows without gates.
        modules: as `capacity.described` returns them.
        effect: of the gates, or None.
        scores: columns group, loss and metric; ece and brier where they were recorded.
        metric: that decides, whose values the column metric holds; None where the run does not say.
    """
    words = {
        "loss": "held-out loss",
        "metric": f"held-out {metric_words(metric or 'metric')}",
        "ece": "calibration error",
        "brier": "Brier score",
    }
    frame = scores.rename(columns=words).reset_index(drop=True)
    if effect is None or gates.empty or len(gates) != len(frame):
        return frame
    short = dict(zip(modules["position"], modules["short"], strict=True))
    against = gates.to_numpy(float) - np.nanmean(gates.to_numpy(float), axis=0)
    beyond = [module for module in np.flatnonzero(effect.is_significant).tolist() if module in short]
    for column, sign in (("larger gates", 1), ("smaller gates", -1)):
        frame[column] = [_named(row, sign, beyond, short) for row in against]
    return frame


def _named(row: np.ndarray, sign: int, beyond: Sequence[int], short: Mapping[int, str]) -> str:
    """Return the three modules whose gate differs most in one direction, with the difference."""
    order = sorted((m for m in beyond if sign * row[m] > 0), key=lambda m: -sign * row[m])[:3]
    return ", ".join(f"{short[m]} {signed(float(row[m]), 3)}" for m in order) or "none significant"
