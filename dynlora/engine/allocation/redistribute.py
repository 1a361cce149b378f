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
class Prices:
    """Prices and what is free.

    Attributes:
        prices: of one component, by module.
        free: what the budget has left.
    """

    prices: Sequence[int]
    free: int

    @classmethod
    def of(cls, adapters: Adapters, currency: str) -> Prices:
        """Return prices in parameters, or in components of which Σ reference rank may be held."""
        if currency == "parameters":
            return cls(adapters.costs, adapters.slack)
        held = sum(module.rank for module in adapters)
        return cls([1] * len(adapters), adapters.reference_rank * len(adapters) - held)


def redistribute(
    drops: Sequence[Drop], claims: Iterable[int], purse: Prices, grow: Callable[[int, int], Grow]
) -> list[Edit]:
    """Return moves from what goes to what claims, and the drops that paid for nothing.

    Args:
        drops: components that go, those that pay first in front.
        claims: modules in the order of their claims, each as often as it claims; one that what is left cannot pay for
            is passed over.
        purse: prices and what is free beside.
        grow: makes the n-th new component, from 0, of a module.
    """
    waiting, free = list(drops), purse.free
    got: Counter[int] = Counter()
    edits: list[Edit] = []
    for module in claims:
        price = purse.prices[module]
        if price > free + sum(purse.prices[drop.module] for drop in waiting):
            continue
        payers: list[Drop] = []
        while free < price:
            payers.append(waiting.pop(0))
            free += purse.prices[payers[-1].module]
        free -= price
        edits.append(Move(tuple(payers), grow(module, got[module])))
        got[module] += 1
    return [*edits, *waiting]
