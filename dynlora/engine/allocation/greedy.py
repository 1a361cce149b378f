"""Ranks by greedy choice: components go where the next one reduces the loss most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynlora.engine.edits import Drop, Edit, Grow, Move
from dynlora.engine.model.adapters import Adapters


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
    grown: list[Grow] = []
    for m, (module, rank) in enumerate(zip(adapters, ranks, strict=True)):
        order = np.argsort(importance[m, : module.rank], kind="stable")
        going = order[: max(0, module.rank - rank)]
        drops += [Drop(m, int(j), float(importance[m, j])) for j in going]
        for j in range(module.rank - len(going), rank):
            grown.append(Grow(m, float(gains[m][j]) if j < len(gains[m]) else 0.0))
    return _paired(drops, grown, adapters.costs, adapters.slack)


def _paired(drops: list[Drop], grown: list[Grow], costs: Sequence[int], slack: int) -> list[Edit]:
    """Return moves in which the components that go, in order, pay for those that come; what is left over is dropped."""
    waiting = list(drops)
    edits: list[Edit] = []
    for grow in grown:
        payers: list[Drop] = []
        while slack < costs[grow.module] and waiting:
            payers.append(waiting.pop(0))
            slack += costs[payers[-1].module]
        slack -= costs[grow.module]
        edits.append(Move(tuple(payers), grow))
    return [*edits, *waiting]
