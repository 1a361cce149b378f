"""Merged updates against dense reference implementations: the sum, TIES and DARE on the product."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynlora.engine.compress.components import Components, by_global_threshold, within_budget
from dynlora.engine.given_start import GivenModule
from dynlora.engine.randomness import stream
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.merge.work.run import dare, merged_components, ties

D_OUT, D_IN = 7, 9
WHOLE = 10**6
"""More components than any of these modules has."""


def settings_of(sources: int, **values: object) -> MergeSettings:
    return MergeSettings.of(sources=[f"run-{number}" for number in range(sources)], **values)


def update(rank: int, seed: int, scaling: float = 1.0, *, d_out: int = D_OUT, d_in: int = D_IN) -> GivenModule:
    draw = torch.Generator().manual_seed(seed)
    return GivenModule(torch.randn(rank, d_in, generator=draw), torch.randn(d_out, rank, generator=draw), scaling)


def dense(one: GivenModule) -> Tensor:
    return one.scaling * (one.B.double() @ one.A.double())


def product(table: Components) -> Tensor:
    return table.scaling * (table.B.double() @ table.A.double())


def merged(updates: dict[int, GivenModule], of: MergeSettings, most: int = WHOLE) -> Components:
    return merged_components(updates, of, "layers.0.q", D_OUT, D_IN, most)


@given(
    ranks=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.1, 3), min_size=4, max_size=4),
    scaling=st.floats(0.1, 4),
)
def test_a_stack_with_the_whole_budget_is_the_weighted_sum(
    ranks: list[int], weights: list[float], scaling: float
) -> None:
    updates = {place: update(rank, place, scaling / (1 + place)) for place, rank in enumerate(ranks)}
    table = merged(updates, settings_of(len(ranks), weights=weights[: len(ranks)]))
    expected = sum(weights[place] * dense(one) for place, one in updates.items())
    torch.testing.assert_close(product(table), expected, atol=2e-5, rtol=2e-5)
    assert len(table) <= min(sum(ranks), D_OUT, D_IN)


def test_equal_adapters_are_merged_into_themselves_at_their_own_rank() -> None:
    one = update(3, 0)
    table = merged({0: one, 1: one}, settings_of(2))
    assert len(table) == 3
    torch.testing.assert_close(product(table), dense(one), atol=1e-5, rtol=1e-5)


def test_one_threshold_over_all_modules_is_the_best_truncation() -> None:
    tables = [merged({0: update(3, seed), 1: update(2, 9 + seed, 0.2 + seed)}, settings_of(2)) for seed in range(3)]
    budget = 8 * (D_OUT + D_IN)
    chosen = within_budget(by_global_threshold(tables, 0), tables, budget)
    assert sum(map(len, chosen)) == 8
    values = np.concatenate([torch.linalg.svdvals(product(table)).numpy() for table in tables])
    lost = sum(
        float((product(table) - table.B[:, : len(one)].double() @ table.A[: len(one)].double()).square().sum())
        for table, one in zip(tables, chosen, strict=True)
    )
    assert lost == pytest.approx(float(np.sort(values**2)[:-8].sum()), rel=1e-4, abs=1e-6)
    assert len({len(one) for one in chosen}) > 1, "modules get ranks of their own"


def plain_ties(updates: list[np.ndarray], weights: list[float], density: float) -> np.ndarray:
    """Return TIES entry by entry, as the paper has it: trim, elect, average over those that agree."""
    trimmed = []
    for one in updates:
        n = math.ceil(density * one.size)
        least = np.sort(np.abs(one).ravel())[-n]
        trimmed.append(np.where(np.abs(one) >= least, one, 0.0))
    total = np.zeros_like(updates[0])
    for place in np.ndindex(total.shape):
        values = [one[place] for one in trimmed]
        mass = sum(w * value for w, value in zip(weights, values, strict=True))
        agreeing = [(w, value) for w, value in zip(weights, values, strict=True) if value * mass > 0]
        if agreeing:
            total[place] = sum(weights) * sum(w * v for w, v in agreeing) / sum(w for w, _ in agreeing)
    return total


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("weights", [(), (0.2, 0.5, 0.6)])
def test_ties_is_that_of_the_paper_on_the_product(density: float, weights: tuple[float, ...]) -> None:
    updates = {place: update(1 + place, place, 0.5 + place) for place in range(3)}
    of = settings_of(3, method="ties", density=density, weights=weights)
    expected = plain_ties([dense(one).numpy() for one in updates.values()], list(of.shares), density)
    np.testing.assert_allclose(product(merged(updates, of)).numpy(), expected, atol=2e-5)


def test_ties_and_dare_do_not_depend_on_the_basis_of_the_factors() -> None:
    one, other = update(2, 0), update(3, 1)
    turn = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(5))).Q
    turned = GivenModule(turn @ one.A, one.B @ turn.t(), one.scaling)
    for method in ("ties", "dare"):
        of = settings_of(2, method=method)
        torch.testing.assert_close(
            product(merged({0: one, 1: other}, of)), product(merged({0: turned, 1: other}, of)), atol=1e-4, rtol=1e-4
        )


def test_entries_whose_signs_cancel_are_left_out_of_ties() -> None:
    updates = {0: torch.tensor([[2.0, -1.0]]), 1: torch.tensor([[-2.0, -3.0]])}
    assert ties(updates, (0.5, 0.5), settings_of(2, method="ties", density=1.0), "").tolist() == [[0.0, -2.0]]


def test_dare_drops_by_seed_and_rescales_what_is_left() -> None:
    of = settings_of(2, method="dare", density=0.25)
    updates = {0: update(2, 0), 1: update(3, 1)}
    expected = torch.zeros(D_OUT, D_IN, dtype=torch.float64)
    for place, one in updates.items():
        mask = torch.rand(D_OUT, D_IN, generator=stream(0, "layers.0.q", place, "dare")) < 0.25
        expected += 0.5 * dense(one) * mask / 0.25
    torch.testing.assert_close(product(merged(updates, of)), expected, atol=2e-5, rtol=2e-5)
    assert torch.equal(merged(updates, of).A, merged(updates, of).A)
    other = merged(updates, settings_of(2, method="dare", density=0.25, seed=1))
    assert not torch.allclose(product(other), expected)


def test_dare_keeps_the_mean_of_every_entry() -> None:
    one = torch.ones(200, 200, dtype=torch.float64)
    merge = dare({0: one, 1: one}, (0.5, 0.5), settings_of(2, method="dare", density=0.1), "m")
    assert float(merge.mean()) == pytest.approx(1.0, abs=0.05)
    assert set(merge.unique().tolist()) == {0.0, 5.0, 10.0}


def test_a_module_of_one_source_alone_is_its_share_of_it() -> None:
    one = update(2, 0)
    torch.testing.assert_close(product(merged({1: one}, settings_of(2))), 0.5 * dense(one), atol=1e-5, rtol=1e-5)
    of = settings_of(2, method="dare", density=1.0, weights=(1.0, 0.3))
    torch.testing.assert_close(product(merged({1: one}, of)), 0.3 * dense(one), atol=1e-5, rtol=1e-5)


def test_no_more_triplets_are_made_than_the_budget_could_hold() -> None:
    updates = {0: update(4, 0), 1: update(4, 1)}
    whole, few = (merged(updates, settings_of(2, method="ties"), most) for most in (WHOLE, 3))
    assert len(few) == 3
    torch.testing.assert_close(few.effect, whole.effect[:3], rtol=1e-4, atol=1e-6)
