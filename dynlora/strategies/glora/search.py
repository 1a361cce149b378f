"""The search for a path a module: candidates of a super-net are bred under a limit on their parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynlora.engine.data.held_back import HeldBack
from dynlora.engine.evaluation.evaluate import predict
from dynlora.engine.model.modules import ModuleInfo
from dynlora.strategies.glora.layer import GloraLinear, path_cost

BATCH = 64
"""Rows a forward pass, whatever the run trains with, so that it does not decide between close candidates."""

DIGITS = 5
"""Decimals of a loss that count: many paths do not change the function, and rounding must not choose among them."""

Candidate = tuple[str, ...]
"""One path a module."""


@dataclass(frozen=True)
class Space:
    """What may be chosen.

    Attributes:
        modules: of the model.
        paths: that each may take.
        ranks: of each module's low-rank forms.
        limit: parameters that a candidate may use.
    """

    modules: Sequence[ModuleInfo]
    paths: Sequence[Sequence[str]]
    ranks: Sequence[int]
    limit: int

    def cost(self, candidate: Candidate) -> int:
        """Return the parameters that a candidate uses."""
        return sum(map(path_cost, candidate, self.modules, self.ranks))

    def drawn(self, rng: np.random.Generator) -> Candidate:
        """Return a candidate drawn uniformly, and made to fit."""
        return self.fitted(tuple(paths[int(rng.integers(len(paths)))] for paths in self.paths), rng)

    def fitted(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a candidate within the limit: modules drawn at random lose A, then B, then all, until it fits."""
        paths, left = list(candidate), self.cost(candidate)
        for keep in (1, 2, 5):
            for index in rng.permutation(len(paths)).tolist():
                if left <= self.limit:
                    return tuple(paths)
                smaller = "n" * keep + paths[index][keep:]
                info, rank = self.modules[index], self.ranks[index]
                left += path_cost(smaller, info, rank) - path_cost(paths[index], info, rank)
                paths[index] = smaller
        return tuple(paths)

    def crossed(self, one: Candidate, other: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a candidate whose every module comes from either of two."""
        from_one = rng.random(len(one)) < 0.5
        return self.fitted(tuple(a if first else b for a, b, first in zip(one, other, from_one, strict=True)), rng)

    def mutated(self, one: Candidate, probability: float, rng: np.random.Generator) -> Candidate:
        """Return a candidate with some of its modules' paths drawn again."""
        new = rng.random(len(one)) < probability
        parts = zip(one, self.paths, new, strict=True)
        drawn = [paths[int(rng.integers(len(paths)))] if again else path for path, paths, again in parts]
        return self.fitted(tuple(drawn), rng)


def evolve(
    space: Space,
    loss: Callable[[Candidate], float],
    rng: np.random.Generator,
    *,
    first: Candidate,
    population: int,
    rounds: int,
    kept: int,
    mutation: float,
) -> tuple[Candidate, list[dict[str, Any]]]:
    """Return the best candidate that was found, the cheapest of equals, and what each round found.

    Args:
        space: of the candidates.
        loss: of a candidate; asked once of each. What is no number counts as worst.
        rng: of all draws.
        first: a member of the first population; it must fit, so the result is never worse than it.
        population: candidates a round.
        rounds: after the first population.
        kept: best ones so far that the next are bred from.
        mutation: probability that a module's path is drawn again.
    """
    losses: dict[Candidate, float] = {}
    made = [first, *(space.drawn(rng) for _ in range(population - 1))]
    history: list[dict[str, Any]] = []
    for number in range(rounds + 1):
        for candidate in made:
            if candidate not in losses:
                value = loss(candidate)
                losses[candidate] = round(value, DIGITS) if np.isfinite(value) else float(np.finfo(np.float32).max)
        best = sorted(losses, key=lambda candidate: (losses[candidate], space.cost(candidate)))[:kept]
        seen = [[space.cost(candidate), losses[candidate]] for candidate in dict.fromkeys(made)]
        round_ = {"round": number, "best_loss": losses[best[0]], "parameters": space.cost(best[0])}
        history.append({**round_, "tried": len(losses), "population": seen})
        made = [
            space.crossed(best[rng.integers(len(best))], best[rng.integers(len(best))], rng)
            if index % 2
            else space.mutated(best[rng.integers(len(best))], mutation, rng)
            for index in range(population)
        ]
    return min(losses, key=lambda candidate: (losses[candidate], space.cost(candidate))), history


def loss_of(held_back: HeldBack, modules: Sequence[GloraLinear], candidate: Candidate, rows: int) -> float:
    """Return the mean loss of a candidate on the first of the reserved rows, each counted once."""
    tokens = held_back.reserve.take(np.arange(min(rows, len(held_back.reserve))))
    with ExitStack() as stack:
        for module, path in zip(modules, candidate, strict=True):
            stack.enter_context(module.trying(path))
        predictions = predict(
            held_back.model, held_back.forward, tokens, held_back.task, batch_size=BATCH, autocast=held_back.autocast
        )
    return float(predictions.loss.mean())
