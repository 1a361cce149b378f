"""Redistribution: the parameters of components that go pay for components elsewhere, in a given order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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
