"""Ranks by greedy choice, and the edits that lead to them: components that go pay for those that come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dynlora.engine.edits import Drop, Edit, Grow, Move
from dynlora.engine.model.adapters import Adapters

BUDGET_UNITS = ("parameters", "components")
"""What a budget can be counted in."""


@dataclass(frozen=True)
class Budget:
    """What one component of every module costs, and what is free to spend.

    Attributes:
        costs: of one component, by module.
        free: what is left to spend.
    """

    costs: Sequence[int]
    free: int

    @classmethod
    def of(cls, adapters: Adapters, unit: str) -> Budget:
        """Return the budget in parameters, or in components: then Σ reference rank of them may be held."""
        if unit == "parameters":
            return cls(adapters.costs, adapters.slack)
        held = sum(module.rank for module in adapters)
        return cls([1] * len(adapters), adapters.reference_rank * len(adapters) - held)


def redistribute(
    drops: Sequence[Drop], claims: Iterable[int], budget: Budget, grow: Callable[[int, int], Grow]
) -> list[Edit]:
    """Return moves from what goes to what claims, and the drops that paid for nothing.

    Args:
        drops: components that go, those that pay first in front.
        claims: modules in the order of their claims, each as often as it claims; one that what is left cannot pay for
            is passed over.
        budget: costs, and what is free before anything goes.
        grow: makes the n-th new component, from 0, of a module.
    """
    waiting, free = list(drops), budget.free
    got: Counter[int] = Counter()
    edits: list[Edit] = []
    for module in claims:
        cost = budget.costs[module]
        if cost > free + sum(budget.costs[drop.module] for drop in waiting):
            continue
        payers: list[Drop] = []
        while free < cost:
            payers.append(waiting.pop(0))
            free += budget.costs[payers[-1].module]
        free -= cost
        edits.append(Move(tuple(payers), grow(module, got[module])))
        got[module] += 1
    return [*edits, *waiting]


def greedy_ranks(
    gains: Sequence[np.ndarray], cost: Sequence[int], max_ranks: Sequence[int], *, budget: int, min_rank: int
) -> list[int]:
    """Return ranks that take the components with the largest predicted gain per parameter, until the budget is spent.

    Args:
        gains: per module, the predicted gain of its first, second, ... component, falling, (n,).
        cost: parameters of one component, by module.
        max_ranks: largest rank, by module.
        budget: parameters in all.
        min_rank: minimum rank of every module, as far as the budget allows.

    What no predicted gain asks for is spread over the modules evenly: a budget is there to be spent.
    """
    ranks, left = [0] * len(cost), budget
    every = range(len(cost))
    minimum = [m for _ in range(min_rank) for m in every]
    predicted = sorted(
        (-gain / cost[m], m) for m in every for gain in gains[m][min_rank:] if np.isfinite(gain) and gain > 0
    )
    rounds = [m for _ in range(max(max_ranks, default=0)) for m in every]
    for m in [*minimum, *(m for _, m in predicted), *rounds]:
        if ranks[m] < max_ranks[m] and cost[m] <= left:
            ranks[m] += 1
            left -= cost[m]
    return ranks


def toward_ranks(
    adapters: Adapters,
    importance: np.ndarray,
    ranks: Sequence[int],
    gains: Sequence[np.ndarray],
) -> list[Edit]:
    """Return the edits that give every module its rank at once; what goes pays for what comes.

    Args:
        adapters: the adapted modules.
        importance: of each component, (n_modules, widest max_rank); the least important go first.
        ranks: wanted, by module.
        gains: per module, the predicted gain of each further component; its row of A is drawn.
    """
    drops: list[Drop] = []
    claims: list[int] = []
    for m, (module, rank) in enumerate(zip(adapters, ranks, strict=True)):
        order = np.argsort(importance[m, : module.rank], kind="stable")
        drops += [Drop(m, int(j), float(importance[m, j])) for j in order[: max(0, module.rank - rank)]]
        claims += [m] * (rank - module.rank)

    def grow(m: int, n: int) -> Grow:
        """Return the n-th component that a module gains."""
        j = adapters[m].rank + n
        return Grow(m, float(gains[m][j]) if j < len(gains[m]) else 0.0)

    return redistribute(drops, claims, Budget(adapters.costs, adapters.slack), grow)
