"""Rank transfers: solvers that move components between modules under a budget of parameters; arrays in, moves out.

A solver sees scores only. It never exceeds the budget, keeps every module between its minimum and its maximum rank, and
leaves modules whose scores are not finite alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynlora.engine.edits import Drop, Edit, Grow, Move, SetScale
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.randomness import stream_seed

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


@dataclass(frozen=True)
class AllocationState:
    """The state of the adapters as a solver sees it.

    Attributes:
        scores: per module, the importance of each active component, (rank,).
        may_go: per module, which components may be taken, (rank,) bool; fresh ones may not.
        benefit: of one more component, (n_modules,).
        cost: parameters of one component, (n_modules,).
        max_rank: largest rank of each module, (n_modules,).
        min_rank: minimum rank of every module.
        slack: parameters of the budget that are free.
    """

    scores: Sequence[np.ndarray]
    may_go: Sequence[np.ndarray]
    benefit: np.ndarray
    cost: np.ndarray
    max_rank: np.ndarray
    min_rank: int
    slack: int

    @property
    def rank(self) -> np.ndarray:
        """Active components by module."""
        return np.array([len(score) for score in self.scores])


def allocation_state_of(adapters: Adapters, importance: np.ndarray, *, fresh: int, min_rank: int) -> AllocationState:
    """Return scores and limits of adapters that track the `age` of their components.

    Args:
        adapters: the adapted modules.
        importance: of each component, (n_modules, widest max_rank).
        fresh: components younger than so many steps neither go nor count for their module.
        min_rank: minimum rank of every module.
    """
    age = adapters.track("age").cpu().numpy()
    scores = [importance[m, : module.rank] for m, module in enumerate(adapters)]
    grown_up = [age[m, : module.rank] >= fresh for m, module in enumerate(adapters)]
    benefit = np.array([s[g].min() if g.any() else np.nan for s, g in zip(scores, grown_up, strict=True)])
    max_ranks = np.array([module.max_rank for module in adapters])
    return AllocationState(scores, grown_up, benefit, np.array(adapters.costs), max_ranks, min_rank, adapters.slack)


class Ledger:
    """Keeps the limits while moves are found one by one."""

    def __init__(self, state: AllocationState, *, moves: int, per_module: int) -> None:
        """Allow `moves` components at most, `per_module` given or received by any one module."""
        self.state = state
        self.left = moves
        self.per_module = per_module
        self.slack = state.slack
        self.gave: Counter[int] = Counter()
        self.got: Counter[int] = Counter()
        self.moves: list[Move] = []
        self._donors = _cheapest_first(state)

    def may_receive(self, module: int) -> bool:
        """Say whether a module has spare components, and has not given in this reallocation."""
        has_spare = self.state.rank[module] + self.got[module] < self.state.max_rank[module]
        return bool(has_spare) and self.left > 0 and self.got[module] < self.per_module and not self.gave[module]

    def payers(self, receiver: int) -> list[Drop] | None:
        """Return the cheapest donors that pay for one component of `receiver`, or None when there are not enough.

        Args:
            receiver: module that would grow; it never pays itself.
        """
        need = int(self.state.cost[receiver]) - self.slack
        chosen: list[Drop] = []
        giving: Counter[int] = Counter()
        for drop in self._donors:
            if need <= 0:
                break
            m = drop.module
            given = self.gave[m] + giving[m]
            is_at_minimum = self.state.rank[m] - given <= self.state.min_rank
            if m == receiver or self.got[m] or is_at_minimum or given >= self.per_module:
                continue
            chosen.append(drop)
            giving[m] += 1
            need -= int(self.state.cost[m])
        return chosen if need <= 0 else None

    def book(self, payers: list[Drop], receiver: int) -> None:
        """Record one move."""
        for drop in payers:
            self.gave[drop.module] += 1
            self.slack += int(self.state.cost[drop.module])
        paid = {(drop.module, drop.component) for drop in payers}
        self._donors = [drop for drop in self._donors if (drop.module, drop.component) not in paid]
        self.slack -= int(self.state.cost[receiver])
        self.got[receiver] += 1
        self.left -= 1
        self.moves.append(Move(tuple(payers), Grow(receiver, float(self.state.benefit[receiver]))))


def swap(state: AllocationState, *, moves: int, per_module: int, hysteresis: float) -> list[Move]:
    """Move the least important components per parameter to the modules where one more helps most per parameter.

    A move happens when benefit > (1 + hysteresis) × what the donors lose. Several cheap donors may pay for one large
    component; what is left over becomes slack, and slack is spent first.

    Args:
        state: scores and limits.
        moves: components grown at most in this reallocation.
        per_module: components a module gives, or receives, at most in this reallocation.
        hysteresis: fraction by which the benefit must exceed the loss.
    """
    ledger = Ledger(state, moves=moves, per_module=per_module)
    value = state.benefit / state.cost
    wanting = [m for m in range(len(value)) if np.isfinite(value[m]) and value[m] > 0]
    # The most valuable receiver is served first, so that a budget too small for all goes where it helps most. Ties go
    # by position, as a run must come out the same wherever it is trained.
    for receiver in sorted(wanting, key=lambda m: (-value[m], m)):
        while ledger.may_receive(receiver):
            payers = ledger.payers(receiver)
            if payers is None:  # too few donors for this module; one whose components cost less may still be paid
                break
            loss = sum(drop.score for drop in payers)
            # Written so that a benefit or loss which is not a number stops the moves: NaN > x is false.
            if not state.benefit[receiver] > (1 + hysteresis) * loss:
                break
            ledger.book(payers, receiver)
    return ledger.moves


def proportional_ranks(
    weight: np.ndarray, cost: np.ndarray, *, budget: int, least: np.ndarray, most: np.ndarray
) -> list[int]:
    """Return ranks in proportion to `wanted` between the limits, one factor on all chosen so that the budget is spent.

    Ranks are rounded down, then the largest remainders get the next component while it fits, and so on until nothing
    does. Where even the minimum ranks exceed the budget, they are lowered one by one, the most expensive first.

    Args:
        weight: what the ranks are to be in proportion to, (n_modules,); what is not finite or not positive counts as 0.
        cost: parameters of one component, (n_modules,).
        budget: parameters in all.
        least: minimum of each rank, (n_modules,).
        most: maximum of each rank, (n_modules,).
    """
    weight = np.where(np.isfinite(weight) & (weight > 0), weight, 0.0).astype(float)
    least = np.minimum(least, most)
    low, high = 0.0, float(most.max(initial=0)) / max(float(weight[weight > 0].min(initial=np.inf)), 1e-300)
    high = high if np.isfinite(high) and weight.any() else 0.0
    for _ in range(200):  # bisection: what the ranks cost rises with the factor
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * weight, least, most) @ cost <= budget else (low, middle)
    exact = np.clip(low * weight, least, most)
    ranks = np.floor(exact + 1e-9).astype(int)
    while (spent := int(ranks @ cost)) > budget:
        ranks[max(np.flatnonzero(ranks > 0), key=lambda m: (cost[m] * ranks[m], -m))] -= 1
    while True:
        open_to = np.flatnonzero((ranks < most) & (spent + cost <= budget))
        if not len(open_to):
            return ranks.tolist()
        best = max(open_to, key=lambda m: (exact[m] - ranks[m], -m))
        ranks[best] += 1
        spent += int(cost[best])


def drawn(state: AllocationState, seed: int, *key: object) -> AllocationState:
    """Return the same limits with scores drawn at random from the seed's stream: the control of random allocation."""
    rng = np.random.default_rng(stream_seed(seed, *key))
    n = len(state.cost)
    scores = [rng.random(len(score)) * cost for score, cost in zip(state.scores, state.cost, strict=True)]
    benefit = (1 + rng.random(n)) * state.cost * 1e9  # above any loss, so that hysteresis never holds a move back
    return replace(state, scores=scores, benefit=benefit)


def scalar_weights(importance: np.ndarray) -> np.ndarray:
    """Return n · importance / Σ importance, mean 1; what is not finite counts as nearly nothing."""
    logs = np.log(np.maximum(np.where(np.isfinite(importance), importance, 0.0), 1e-30))
    weight = np.exp(logs - logs.max())
    return weight * (len(weight) / weight.sum())


def weighted(adapters: Adapters, importance: np.ndarray) -> list[Edit]:
    """Return the edits that move one scale per module halfway to its fraction of the importance, (n_modules,)."""
    edits: list[Edit] = []
    for m, weight in enumerate(scalar_weights(importance)):
        module = adapters[m]
        old = 1.0 if module.scale is None or not module.rank else float(module.scale[0])
        edits.append(SetScale(m, (0.5 * (old + float(weight)),)))
    return edits


def trimmed_ranks(rank: int, cost: Sequence[int], budget: int) -> list[int]:
    """Return uniform ranks, less components of the cheapest modules, round by round, until they fit a budget.

    Among modules of one cost those that go first are spread evenly over the model.
    """
    ranks = [rank] * len(cost)
    over = sum(r * c for r, c in zip(ranks, cost, strict=True)) - budget
    golden = (5**0.5 - 1) / 2  # multiples of it, modulo one, never crowd
    order = sorted(range(len(cost)), key=lambda m: (cost[m], -(m * golden % 1)))
    while over > 0 and any(ranks):
        for m in order:
            if over > 0 and ranks[m] > 0:
                ranks[m] -= 1
                over -= cost[m]
    return ranks


def _cheapest_first(state: AllocationState) -> list[Drop]:
    """Return the components that may go, the least important per parameter first; ties by module, then position."""
    candidates = [
        (score / state.cost[m], m, j, float(score))
        for m, scores in enumerate(state.scores)
        if np.isfinite(scores).all()
        for j, score in enumerate(scores)
        if state.may_go[m][j]
    ]
    return [Drop(m, j, score) for _, m, j, score in sorted(candidates)]
