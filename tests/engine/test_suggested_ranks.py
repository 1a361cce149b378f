"""Ranks that gains suggest: within the budget, where the gains are, and only as sure as both halves are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.engine.allocation.suggested_ranks import RankRequest, component_gains, suggest
from dynlora.engine.model.gradient_sketch import Directions
from dynlora.engine.model.modules import ModuleInfo

KINDS = ("q", "v", "up")
RANK, LIMIT = 4, 8


def wanted(budget: float = 1.0, layers: int = 3, left_out: Sequence[str] = ()) -> RankRequest:
    """Three kinds of modules, the last of them wider."""
    infos = [ModuleInfo(f"{i}.{kind}", i, kind, 8, 32 if kind == "up" else 8) for i in range(layers) for kind in KINDS]
    whole = RANK * sum(info.cost for info in infos)
    return RankRequest(infos, RANK, [LIMIT] * len(infos), int(budget * whole), left_out=left_out)


def falling(seed: int, n: int, scale: Sequence[float] | float = 1.0) -> list[np.ndarray]:
    """Random falling gains of n modules."""
    rng = np.random.default_rng(seed)
    return [np.sort(rng.random(LIMIT))[::-1] * size for size in np.broadcast_to(scale, n)]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.3, 1.0), st.integers(1, 5))
def test_the_budget_holds_and_nobody_passes_a_limit(seed: int, budget: float, layers: int) -> None:
    request = wanted(budget, layers)
    n = len(request.modules)
    suggestion = suggest(falling(seed, n), [falling(seed + 1, n), falling(seed + 2, n)], request)
    assert suggestion.parameters == sum(
        rank * info.cost for rank, info in zip(suggestion.ranks, request.modules, strict=True)
    )
    assert suggestion.parameters <= request.budget
    assert request.budget - suggestion.parameters < max(request.costs) or set(suggestion.ranks) == {LIMIT}
    assert 1 <= min(suggestion.ranks) <= max(suggestion.ranks) <= LIMIT
    assert 0 <= suggestion.agreement <= 1
    assert suggestion.gain.sum() == pytest.approx(1)
    assert sum(family.parameters_share for family in suggestion.families) == pytest.approx(1)


def test_rank_goes_where_the_gain_is() -> None:
    request = wanted()
    strong = [10.0 if info.kind == "v" else 1.0 for info in request.modules]
    gains = [np.full(LIMIT, size) * cost for size, cost in zip(strong, request.costs, strict=True)]
    suggestion = suggest(gains, [gains, gains], request)
    assert {rank for rank, info in zip(suggestion.ranks, request.modules, strict=True) if info.kind == "v"} == {LIMIT}
    assert suggestion.families[0].name == "v"
    assert (suggestion.agreement, suggestion.correlation) == (1.0, pytest.approx(1))


def test_halves_that_disagree_are_said_to() -> None:
    request = wanted()
    n = len(request.modules)
    one, other = np.geomspace(1, 100, n), np.geomspace(100, 1, n)
    halves = [[np.full(LIMIT, a) * cost for a, cost in zip(size, request.costs, strict=True)] for size in (one, other)]
    suggestion = suggest(halves[0], halves, request)
    assert suggestion.correlation == pytest.approx(-1)
    assert suggestion.agreement < 0.7


def test_only_what_both_halves_find_weak_may_go() -> None:
    request = wanted()
    size = {"q": 0.1, "v": 1.0, "up": 1.0}

    def gains(of: dict[str, float]) -> list[np.ndarray]:
        return [np.full(LIMIT, of[info.kind]) * info.cost for info in request.modules]

    both = suggest(gains(size), [gains(size), gains(size)], request)
    assert [family.name for family in both.families if family.can_go] == ["q"]
    one = suggest(gains(size), [gains(size), gains({**size, "q": 1.0})], request)
    assert not any(family.can_go for family in one.families)
    without = suggest(gains(size), [gains(size), gains(size)], wanted(left_out=["q"]))
    assert {rank for rank, info in zip(without.ranks, request.modules, strict=True) if info.kind == "q"} == {0}
    assert without.parameters > 0.9 * request.budget


def test_modules_that_cannot_be_ordered_have_no_correlation() -> None:
    request = wanted(layers=1)
    gains = [np.full(LIMIT, 1.0) * cost for cost in request.costs]
    assert suggest(gains, [gains, gains], request).correlation is None
    none = [np.zeros(LIMIT) for _ in request.modules]
    suggestion = suggest(none, [none, none], request)
    assert (suggestion.parameters, suggestion.gain.sum()) == (request.budget, 0)


def test_a_component_gains_by_the_size_and_the_spread_of_its_direction() -> None:
    left = torch.tensor([[1.0, 0.0], [2**-0.5, 2**-0.5]])
    gains = component_gains(Directions(left, torch.tensor([3.0, 2.0]), torch.eye(2)))
    assert gains == pytest.approx([3.0, 2 * 2**0.5], rel=1e-6)
