"""Components, orders and the smallest size: invariants that hold for every adapter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dynlora.engine.compress.components import METHODS, Components, components, within_budget

EVEN = ("global", "uniform", "energy")
"""Ways to choose that treat modules alike."""


def drawn(seed: int, rank: int, d_in: int = 12, d_out: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Random factors."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, d_in, generator=generator), torch.randn(d_out, rank, generator=generator)


def moment(seed: int, rows: torch.Tensor) -> torch.Tensor:
    """The second moment, seen through rows, of a random sample with directions of unequal variance."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn(400, rows.shape[1], generator=generator) * torch.linspace(0.1, 3, rows.shape[1])
    inner = (sample @ rows.t()).double()
    return inner.t() @ inner


def table(effects: list[float], cost: int = 10) -> Components:
    """Components of these effects, their factors of no matter."""
    n = len(effects)
    return Components(torch.zeros(n, 3), torch.zeros(3, n), torch.tensor(effects, dtype=torch.float64), 1.0, cost)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 8), st.booleans(), st.booleans())
def test_all_components_together_are_the_update(seed: int, rank: int, inputs: bool, outputs: bool) -> None:
    A, B = drawn(seed, rank)
    parts = components(
        A, B, 2.0, inputs=moment(seed, A) if inputs else None, outputs=moment(seed + 1, B.t()) if outputs else None
    )
    update = 2.0 * (B @ A)
    torch.testing.assert_close(parts.scaling * (parts.B @ parts.A), update, atol=1e-4, rtol=1e-4)
    effect = parts.effect.numpy()
    assert (np.diff(effect) <= 1e-9 * effect.max(initial=1)).all()
    assert (effect > 0).all()


def test_plain_components_are_the_singular_value_decomposition() -> None:
    A, B = drawn(3, 5)
    parts = components(A, B, 0.5)
    value = torch.linalg.svdvals(0.5 * (B @ A).double())[:5]
    torch.testing.assert_close(parts.effect.sqrt(), value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_no_other_update_of_the_rank_is_nearer_on_the_inputs_that_were_seen(keep: int) -> None:
    A, B = drawn(5, 6)
    sample = torch.randn(500, A.shape[1], generator=torch.Generator().manual_seed(0)) * torch.linspace(0.05, 4, 12)
    inner = (sample @ A.t()).double()
    update = (B @ A).double()

    def lost(parts: Components) -> float:
        small = (parts.B[:, :keep] @ parts.A[:keep]).double()
        return float((sample.double() @ (update - small).t()).square().sum())

    weighted, plain = components(A, B, 1.0, inputs=inner.t() @ inner), components(A, B, 1.0)
    best = float(torch.linalg.svdvals(sample.double() @ update.t())[keep:].square().sum())
    assert lost(weighted) <= lost(plain)
    assert lost(weighted) == pytest.approx(best, rel=0.02)  # the ridge costs a little


def test_an_untrained_module_has_no_components() -> None:
    A, B = drawn(1, 4)
    assert len(components(A, torch.zeros_like(B), 2.0)) == 0


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.floats(1e-6, 1e3), max_size=6), min_size=1, max_size=6),
    st.integers(0, 400),
    st.integers(0, 400),
    st.sampled_from(sorted(METHODS)),
)
def test_budgets_hold_and_a_larger_one_keeps_what_a_smaller_one_kept(
    effects: list[list[float]], first: int, second: int, method: str
) -> None:
    tables = [table(sorted(one, reverse=True), cost=7 + 3 * index) for index, one in enumerate(effects)]
    order = METHODS[method](tables, 0)
    assert sorted(map(tuple, order)) == [(m, k) for m, one in enumerate(tables) for k in range(len(one))]
    small, large = (within_budget(order, tables, budget) for budget in sorted((first, second)))
    for budget, chosen in ((min(first, second), small), (max(first, second), large)):
        assert sum(len(one) * t.cost for one, t in zip(chosen, tables, strict=True)) <= budget
    for few, many in zip(small, large, strict=True):
        assert set(few) <= set(many)
        assert method == "random" or list(many) == list(range(len(many)))


@given(st.integers(0, 200))
def test_the_global_threshold_keeps_nothing_below_what_it_leaves_out(budget: int) -> None:
    tables = [table([9.0, 4.0, 1.0]), table([25.0, 0.5], cost=20), table([2.0, 2.0, 2.0, 2.0])]
    chosen = within_budget(METHODS["global"](tables, 0), tables, budget)
    gain = [t.effect.numpy() / t.cost for t in tables]
    inside = [g[k] for g, one in zip(gain, chosen, strict=True) for k in one]
    outside = [g[k] for g, one in zip(gain, chosen, strict=True) for k in range(len(g)) if k not in one]
    assert not inside or not outside or min(inside) >= max(outside)


def test_energy_gives_each_module_the_rank_that_explains_the_same_share() -> None:
    flat, steep = table([1.0] * 8), table([100.0, 1.0, 0.1, 0.01])
    order = METHODS["energy"]([flat, steep], 0)
    chosen = within_budget(order, [flat, steep], 80)
    assert [len(one) for one in chosen] == [7, 1]


def hand_made(seed: int, spectrum: list[float], stored: int | None = None) -> Components:
    """Components of an adapter with these singular values, its factors rotated and mixed so that none shows them."""
    n, generator = len(spectrum), torch.Generator().manual_seed(seed)
    left, right = (torch.linalg.qr(torch.randn(24, n, generator=generator))[0] for _ in range(2))
    mix = torch.linalg.qr(torch.randn(stored or n, n, generator=generator))[0]  # more components stored than needed
    root = torch.tensor(spectrum).sqrt()
    return components(mix @ (root.unsqueeze(1) * right.t()), left * root @ mix.t(), 1.0)


SPECTRA = st.lists(st.floats(0.5, 2.0, width=32), min_size=1, max_size=8)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), SPECTRA, st.integers(2, 5), st.integers(0, 2000), st.sampled_from(EVEN))
@example(seed=0, spectrum=[1.0] * 8, modules=5, budget=20 * 48, method="global")
@example(seed=0, spectrum=[1.0] * 8, modules=5, budget=22 * 48, method="energy")
def test_hand_made_adapters_with_equal_spectra_are_truncated_evenly(
    seed: int, spectrum: list[float], modules: int, budget: int, method: str
) -> None:
    """To rounding only: what it adds to equal values must not decide where rank goes."""
    tables = [hand_made(seed + index, spectrum) for index in range(modules)]
    assert [len(one) for one in tables] == [len(spectrum)] * modules
    ranks = [len(one) for one in within_budget(METHODS[method](tables, 0), tables, budget)]
    assert max(ranks) - min(ranks) <= 1
    level = budget // (modules * tables[0].cost)
    assert min(ranks) == min(level, len(spectrum))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.lists(st.floats(2.0, 4.0), min_size=6, max_size=6),
    st.lists(SPECTRA.map(lambda one: [0.4 * value for value in one]), min_size=1, max_size=4),
    st.integers(0, 1200),
)
def test_a_planted_update_of_rank_six_keeps_its_rank_under_any_budget_that_allows_it(
    seed: int, planted: list[float], others: list[list[float]], more: int
) -> None:
    tables = [hand_made(seed, planted, stored=8), *(hand_made(seed + 1 + i, one) for i, one in enumerate(others))]
    planted_parts = tables[0]
    chosen = within_budget(METHODS["global"](tables, 0), tables, 6 * planted_parts.cost + more)[0]
    assert list(chosen[:6]) == list(range(6))
    whole = planted_parts.B @ planted_parts.A
    torch.testing.assert_close(planted_parts.B[:, chosen] @ planted_parts.A[chosen], whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        planted_parts.effect[:6].sqrt(),
        torch.tensor(sorted(planted, reverse=True), dtype=torch.float64),
        atol=1e-4,
        rtol=1e-4,
    )
