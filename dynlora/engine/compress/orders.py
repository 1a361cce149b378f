"""In which order components are kept: one threshold over all modules, and the ways that it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dynlora.engine.compress.components import Components
from dynlora.engine.randomness import stream_seed

ROUNDING = 1e-5
"""Share by which effects may differ that are equal but for the rounding of their factors, kept in single precision."""

Order = np.ndarray
"""All components, (n, 2): module and position in it, the first to be kept first."""


def by_global_threshold(tables: Sequence[Components], seed: int) -> Order:
    """Order by effect per parameter over all modules: the first ones are those above one threshold on σ² / cost.

    Equal ones take turns: the first component of every module comes before the second of any.
    """
    places = _places(tables)
    gain = np.concatenate([_effect(table) / table.cost for table in tables]) if len(places) else np.zeros(0)
    return places[np.lexsort((places[:, 0], places[:, 1], _levels(gain)))]


def _levels(gain: np.ndarray) -> np.ndarray:
    """Return which level each number belongs to, 0 for the largest; what differs by rounding alone shares one."""
    falling = np.argsort(-gain, kind="stable")
    levels = np.zeros(len(gain), int)
    levels[falling[1:]] = np.cumsum(gain[falling[1:]] < gain[falling[:-1]] * (1 - ROUNDING))
    return levels


def by_level(tables: Sequence[Components], seed: int) -> Order:
    """Order by position: uniform truncation, the first component of every module before the second of any.

    Where not all modules can have one more, a keyed draw says which do.
    """
    places = _places(tables)
    turn = np.random.default_rng(stream_seed(seed, "uniform truncation")).permutation(len(tables))
    return places[np.lexsort((turn[places[:, 0]], places[:, 1]))]


def by_energy(tables: Sequence[Components], seed: int) -> Order:
    """Order by the fraction of a module's Σσ² that the components before it explain: PEFT's rule, one for all."""
    places = _places(tables)
    before = []
    for table in tables:
        effect = _effect(table)
        before.append((np.cumsum(effect) - effect) / max(float(effect.sum()), 1e-300))
    explained = np.concatenate(before) if len(places) else np.zeros(0)
    return places[np.lexsort((places[:, 0], explained))]


def at_random(tables: Sequence[Components], seed: int) -> Order:
    """Order by a keyed draw: the control."""
    places = _places(tables)
    return places[np.random.default_rng(stream_seed(seed, "random components")).permutation(len(places))]


METHODS: dict[str, Callable[[Sequence[Components], int], Order]] = {
    "global": by_global_threshold,
    "uniform": by_level,
    "energy": by_energy,
    "random": at_random,
}
"""The orders by name; each takes the components and a seed."""


def within_budget(order: Order, tables: Sequence[Components], budget: int) -> list[np.ndarray]:
    """Return the positions of each module's components that a budget of parameters holds: the longest beginning."""
    costs = np.array([table.cost for table in tables])[order[:, 0]] if len(order) else np.zeros(0, int)
    count = int(np.searchsorted(np.cumsum(costs), budget, side="right"))
    first = order[:count]
    return [np.sort(first[first[:, 0] == index, 1]) for index in range(len(tables))]


def _places(tables: Sequence[Components]) -> np.ndarray:
    """Return module and position of every component, (n, 2)."""
    return np.array([(m, k) for m, table in enumerate(tables) for k in range(len(table))], dtype=int).reshape(-1, 2)


def _effect(table: Components) -> np.ndarray:
    return table.effect.double().cpu().numpy()
