"""L1RA: factors pulled to zero, ranks handed round by the smallest factor, budgets kept in either currency."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import dynlora
from dynlora.api import Attached
from dynlora.contracts.harness import make_trainer, tiny_config
from dynlora.engine import edits
from dynlora.engine.allocation.solvers import Budget, redistribute
from dynlora.engine.context import Step
from dynlora.engine.edits import Drop, Grow, Move
from dynlora.engine.loop.optimizer import set_lr
from dynlora.strategies import build

TOTAL = 1000
PULL = 2e-2 * 1e-3


def blocks(*shapes: tuple[int, int], rank: int = 3, **fields: object) -> Attached:
    """Return L1RA on linear modules side by side, in a run of 1,000 steps."""
    torch.manual_seed(0)
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Linear(d_in, d_out) for d_in, d_out in shapes)
    return dynlora.attach(model, strategy="l1ra", budget=rank, steps=TOTAL, **fields)


def set_factors(attached: Attached, *factors: list[float]) -> None:
    """Give the components these factors and B values of one."""
    with torch.no_grad():
        for module, values in zip(attached.adapters, factors, strict=True):
            module.scale[: len(values)] = torch.tensor(values)
            module.lora_B[:, : module.rank] = 1.0


def event(attached: Attached, step: int = 100) -> list[dict]:
    """Let the strategy allocate after a step and return what it did."""
    with torch.no_grad():
        made = attached.strategy.allocate(attached.adapters, Step(step, TOTAL, 1e-3))
        edits.apply(attached.adapters, made, attached.optimizer, step=step)
    return edits.describe(made)


def test_events_and_rates_by_hand() -> None:
    l1ra = build("l1ra", {})
    assert l1ra.events(1000, 8) == [100, 200, 300, 400, 500, 600, 700, 800, 900]
    assert l1ra.events(20, 8) == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert l1ra.rate(1000) == 2e-2
    assert l1ra.rate(100) == pytest.approx(0.1)
    assert l1ra.pull(2000) == pytest.approx(PULL)
    assert l1ra.pull(100) == pytest.approx(0.1 * 0.01)
    for total in range(10, 200):
        assert total < 20 or len(l1ra.events(total, 8)) >= 3


def test_factors_are_pulled_and_stay_between_zero_and_one() -> None:
    attached = blocks((6, 5))
    set_factors(attached, [1.3, 0.5, 1e-5])
    event(attached, step=1)
    factors = attached.adapters[0].scale[:3].tolist()
    assert factors == pytest.approx([1.0, 0.5 - PULL, 0.0], abs=1e-7)


def test_the_rate_of_the_factors_is_their_own_and_constant() -> None:
    trainer = make_trainer(tiny_config("l1ra", train__lr=1e-3))
    scale = trainer.adapters[0].scale
    for step in (1, 10, 20):
        set_lr(trainer.optimizer, trainer.config.train, step, 20)
        rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
        assert rates[id(scale)] == 10 / 20
        assert rates[id(trainer.adapters[0].lora_A)] <= 1e-3
        assert trainer.optimizer.param_groups[0]["lr"] == rates[id(trainer.adapters[0].lora_A)]


def test_ranks_go_round_the_modules_with_the_largest_least_factor() -> None:
    attached = blocks((6, 5), (6, 5), (6, 5), (6, 5))
    set_factors(attached, [0.0, 0.9, 0.0], [0.8, 0.9, 0.7], [0.4, 1.0, 1.0], [0.0, 0.95, 0.95])
    rows = event(attached)
    # three go; module 1 (0.7) comes before module 2 (0.4), then module 1 again; 0 and 3 gave and get nothing
    assert [row["receiver"] for row in rows] == [1, 2, 1]
    assert sorted((row["donor"], row["donor_component"]) for row in rows) == [(0, 0), (0, 2), (3, 0)]
    assert [row["receiver_score"] for row in rows] == pytest.approx([0.7 - PULL, 0.4 - PULL, 0.7 - PULL], abs=1e-6)
    assert [module.rank for module in attached.adapters] == [1, 5, 4, 2]


def test_every_module_keeps_one() -> None:
    attached = blocks((6, 5), (6, 5))
    set_factors(attached, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    event(attached)
    assert [module.rank for module in attached.adapters] == [1, 5]


def test_nothing_moves_where_no_factor_is_zero_or_between_events() -> None:
    attached = blocks((6, 5), (6, 5))
    set_factors(attached, [0.5, 2e-5 + 1e-4, 1.0], [1.0, 1.0, 1.0])
    assert event(attached) == []
    set_factors(attached, [0.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    assert event(attached, step=101) == []


def trained(attached: Attached) -> None:
    """Take three steps, so that there are moments."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        loss = sum(m(torch.randn(8, 64, generator=generator)).pow(2).mean() for m in attached.adapters)
        loss.backward()
        attached.step()


@pytest.mark.parametrize("reset_optimizer", [False, True])
def test_a_new_component_keeps_the_function_and_others_their_moments(reset_optimizer: bool) -> None:
    attached = blocks((64, 5), (64, 5), reset_optimizer=reset_optimizer)
    trained(attached)
    set_factors(attached, [0.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    taker = attached.adapters[1]
    x = torch.randn(4, 64)
    before = [module(x).detach() for module in attached.adapters]
    first = attached.optimizer.state[taker.lora_A]["exp_avg"][:3].clone()
    event(attached)
    for module, wanted in zip(attached.adapters, before, strict=True):
        assert torch.allclose(module(x), wanted, atol=1e-3)  # the pull takes 2e-5 off every factor
    assert taker.rank == 4
    assert not taker.lora_B[:, 3].any()
    assert float(taker.scale[3].detach()) == pytest.approx(1, abs=2 * PULL)
    assert float(taker.lora_A[3].detach().std()) == pytest.approx(1 / 3, rel=0.3)
    state = attached.optimizer.state.get(taker.lora_A, {})
    assert bool(state) != reset_optimizer
    if not reset_optimizer:
        assert torch.equal(state["exp_avg"][:3], first)
        assert torch.allclose(state["exp_avg_sq"][3], state["exp_avg_sq"][:3].mean(0))
        assert not state["exp_avg"][3].any()
    trained(attached)  # goes on


@pytest.mark.parametrize("budget_unit", ["parameters", "components"])
def test_the_budget_holds_in_its_currency(budget_unit: str) -> None:
    attached = blocks((6, 5), (20, 30), (6, 5), budget_unit=budget_unit)
    set_factors(attached, [0.0, 0.0, 0.9], [1.0, 1.0, 1.0], [0.5, 0.5, 0.5])
    event(attached)
    ranks = [module.rank for module in attached.adapters]
    if budget_unit == "components":
        assert ranks == [1, 4, 4]
    else:  # 2 · 11 parameters are free, a component of the second takes 50
        assert ranks == [1, 3, 5]
        assert attached.adapters.slack == 0


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=5),
    st.lists(st.integers(0, 4), max_size=8),
    st.lists(st.integers(0, 4), max_size=12),
    st.integers(0, 60),
)
def test_reassigning_spends_no_more_than_there_is(
    prices: list[int], going: list[int], claims: list[int], free: int
) -> None:
    drops = [Drop(m % len(prices), j) for j, m in enumerate(going)]
    claims_made = [m % len(prices) for m in claims]
    made = redistribute(drops, claims_made, Budget(prices, free), lambda m, nth: Grow(m, score=nth))
    paid = [drop for edit in made if isinstance(edit, Move) for drop in edit.donors]
    left = [edit for edit in made if isinstance(edit, Drop)]
    assert sorted(drop.component for drop in [*paid, *left]) == sorted(drop.component for drop in drops)
    balance = free
    for edit in made:
        if isinstance(edit, Move):
            balance += sum(prices[drop.module] for drop in edit.donors) - prices[edit.receiver.module]
            assert balance >= 0
    granted = [edit.receiver.module for edit in made if isinstance(edit, Move)]
    unpaid = balance + sum(prices[drop.module] for drop in left)
    refused = [m for m in set(claims_made) if granted.count(m) < claims_made.count(m)]
    assert all(prices[m] > unpaid for m in refused)
    for m in set(granted):
        nths = [edit.receiver.score for edit in made if isinstance(edit, Move) and edit.receiver.module == m]
        assert nths == list(range(len(nths)))


def test_zero_factors_are_taken_off_at_the_end_without_a_trace() -> None:
    attached = blocks((6, 5), (6, 5))
    set_factors(attached, [0.0, 0.7, 0.0], [0.0, 0.0, 0.0])
    x = torch.randn(4, 6)
    before = [module(x).detach() for module in attached.adapters]
    edits.apply(attached.adapters, attached.strategy.finish(attached.adapters), attached.optimizer, step=TOTAL)
    assert [module.rank for module in attached.adapters] == [1, 0]
    for module, wanted in zip(attached.adapters, before, strict=True):
        assert torch.allclose(module(x), wanted, atol=1e-6)
