"""Sketches: the leading directions of a weight's gradient, without forming it, and ranks by predicted gains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.contracts.harness import MemoryKeeper, make_trainer, same, tiny_config, tiny_tokens, weights
from dynlora.engine.allocation.solvers import greedy_ranks
from dynlora.engine.edits import Drop, Grow, apply
from dynlora.engine.model.gradient_sketch import GradientSketch

pytestmark = pytest.mark.slow  # together


def empty(d_in: int, d_out: int, key: str = "module/1") -> GradientSketch:
    return GradientSketch.empty(d_in, d_out, seed=0, key=key, device=torch.device("cpu"))


def test_low_rank_gradients_are_found_exactly() -> None:
    torch.manual_seed(0)
    x, g = torch.randn(50, 3) @ torch.randn(3, 40), torch.randn(50, 3) @ torch.randn(3, 30)
    sketch = empty(40, 30)
    sketch.add(x[:20].view(4, 5, 40), g[:20].view(4, 5, 30))
    sketch.add(x[20:], g[20:])
    left, value, right = torch.linalg.svd(g.t() @ x)
    directions = sketch.directions(3)
    torch.testing.assert_close(directions.value, value[:3], rtol=1e-3, atol=0)
    torch.testing.assert_close((directions.right @ right[:3].t()).abs(), torch.eye(3), rtol=0, atol=1e-3)
    torch.testing.assert_close((directions.left @ left[:, :3]).abs(), torch.eye(3), rtol=0, atol=1e-3)


def test_what_it_hears_is_the_gradient_of_the_frozen_weight() -> None:
    trainer = make_trainer(tiny_config("lora"))
    module = trainer.adapters[3]
    module.sketch = empty(module.info.d_in, module.info.d_out)
    module.base_layer.weight.requires_grad_(True)
    batch = tiny_tokens().batch(range(8))
    trainer._loss(batch).backward()
    gradient = module.base_layer.weight.grad
    torch.testing.assert_close(module.sketch.forward_sum, gradient @ module.sketch.omega, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(module.sketch.backward_sum, gradient.t() @ module.sketch.psi, rtol=1e-4, atol=1e-7)


def test_gradients_of_bf16_are_summed_as_exactly_as_they_are_known() -> None:
    torch.manual_seed(0)
    x, g = torch.randn(200, 40), torch.randn(200, 30).bfloat16()
    half, whole = empty(40, 30), empty(40, 30)
    half.add(x, g)
    whole.add(x, g.float())
    assert half.forward_sum.dtype == half.backward_sum.dtype == torch.float32
    for low, exact in ((half.forward_sum, whole.forward_sum), (half.backward_sum, whole.backward_sum)):
        assert 0 < (low - exact).norm() / exact.norm() < 0.01


def test_nothing_heard_gives_no_direction() -> None:
    assert len(empty(6, 5).directions(3).value) == 0
    broken = empty(6, 5)
    broken.add(torch.full((2, 6), float("nan")), torch.ones(2, 5))
    assert len(broken.directions(3).value) == 0


def test_listening_changes_no_weight() -> None:
    silent, heard = (make_trainer(tiny_config("lora", adapter__dropout=0.1)) for _ in range(2))
    for module in heard.adapters:
        module.sketch = empty(module.info.d_in, module.info.d_out, module.info.name)
    for trainer in (silent, heard):
        trainer.train(MemoryKeeper())
    assert same(weights(silent), weights(heard))


def test_a_floor_takes_the_first_promises() -> None:
    gains = [np.array([9.0, 1.0]), np.array([5.0, 4.0])]
    assert greedy_ranks(gains, [1, 1], [2, 2], budget=3, min_rank=1) == [1, 2]


def test_nothing_usable_heard_keeps_the_budget_spread() -> None:
    silent = [np.zeros(0), np.array([np.nan, np.nan]), np.zeros(4)]
    assert greedy_ranks(silent, [3, 3, 3], [4, 4, 4], budget=18, min_rank=0) == [2, 2, 2]


def test_a_new_row_points_where_the_edit_says() -> None:
    adapters = make_trainer(tiny_config("dynamic", strategy={"name": "dynamic", "explore": 1.0})).adapters
    direction = torch.zeros(adapters[0].info.d_in)
    direction[2] = 5.0
    usual = adapters[0].lora_A[1].norm()
    apply(adapters, [Drop(0, 0), Grow(0, direction=direction)], None, step=1)
    torch.testing.assert_close(adapters[0].lora_A[1, 2].abs(), usual)
    assert not adapters[0].lora_B[:, 1].any()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 6)), min_size=1, max_size=8),
    st.integers(0, 200),
    st.integers(0, 2),
    st.integers(0, 10_000),
)
def test_committed_ranks_fit_budget_and_room(
    modules: list[tuple[int, int]], budget: int, floor: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cost, room = [c for c, _ in modules], [max(r, floor) for _, r in modules]
    gains = [rng.choice([np.nan, 0.0, 1.0, rng.random()], r) for r in room]
    ranks = greedy_ranks(gains, cost, room, budget=budget, min_rank=floor)
    assert sum(r * c for r, c in zip(ranks, cost, strict=True)) <= budget
    assert all(0 <= r <= limit for r, limit in zip(ranks, room, strict=True))
