"""The search over paths: within its limit, repeatable, and able to find what was planted."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.engine.model.modules import ModuleInfo
from dynlora.strategies.glora import LORA, PATHS, WITHOUT_BIAS, Space, evolve


def space(n: int, rank: int, limit: float) -> Space:
    """Return a space of modules of odd shapes, every other one without a bias."""
    infos = [ModuleInfo(f"m{i}", i, "m", 3 + 2 * i, 9 - i) for i in range(n)]
    budget = int(limit * sum(rank * info.cost for info in infos))
    return Space(infos, [PATHS if i % 2 else WITHOUT_BIAS for i in range(n)], [rank] * n, budget)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.floats(0.01, 1.0), st.integers(0, 10_000), st.booleans())
def test_the_search_keeps_to_its_limit_and_repeats_itself(
    n: int, rank: int, limit: float, seed: int, nothing: bool
) -> None:
    where = space(n, rank, limit)
    tried: list[tuple[str, ...]] = []

    def loss(candidate: tuple[str, ...]) -> float:
        tried.append(candidate)
        return float("nan") if nothing else -float(where.cost(candidate))

    def search() -> Any:
        rng = np.random.default_rng(seed)
        first = where.fitted((LORA,) * n, rng)
        return evolve(where, loss, rng, first=first, population=6, rounds=2, kept=3, mutation=0.3)

    best, history = search()
    assert len(tried) == len(set(tried)) == history[-1]["tried"]
    for candidate in tried:
        assert where.cost(candidate) <= where.limit
        assert all(path in paths for path, paths in zip(candidate, where.paths, strict=True))
    assert where.cost(best) == max(map(where.cost, tried)) or nothing
    falling = [entry["best_loss"] for entry in history]
    assert falling == sorted(falling, reverse=True)
    assert search() == (best, history)


def test_of_equally_good_paths_the_cheapest_is_taken() -> None:
    where = space(3, 2, 1.0)

    def loss(candidate: tuple[str, ...]) -> float:
        return 0.5 + 1e-7 * where.cost(candidate) / where.limit * (-1) ** where.cost(candidate)

    costs: list[int] = []
    best, _ = evolve(
        where,
        lambda c: costs.append(where.cost(c)) or loss(c),
        np.random.default_rng(0),
        first=(LORA,) * 3,
        population=8,
        rounds=2,
        kept=3,
        mutation=0.3,
    )
    assert where.cost(best) == min(costs) < max(costs)


def test_the_search_finds_a_planted_path() -> None:
    where = space(4, 2, 1.0)
    wanted = ("vnnnn", "nvvnn", "cnnnn", "nnvvv")
    rng = np.random.default_rng(0)

    def distance(candidate: tuple[str, ...]) -> float:
        return sum(
            a != b for one, other in zip(candidate, wanted, strict=True) for a, b in zip(one, other, strict=True)
        )

    best, history = evolve(where, distance, rng, first=(LORA,) * 4, population=40, rounds=40, kept=10, mutation=0.3)
    assert distance(best) <= 2
    assert history[0]["best_loss"] >= 5
