"""Sketches: the leading directions of a weight's gradient, without forming it; resumed, and gone when unused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.contracts.harness import MemoryKeeper, make_trainer, same, tiny_config, tiny_tokens, weights
from dynlora.engine.allocation.solvers import greedy_ranks
from dynlora.engine.context import Step
from dynlora.engine.edits import Drop, Grow, SketchGradients, apply
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.gradient_sketch import Directions, GradientSketch, entropy_rank
from dynlora.engine.model.modules import ModuleInfo
from dynlora.strategies.dynamic.one_shot import ACCUMULATED_STEPS, GradientAccumulation, predicted_gain, within_groups

pytestmark = pytest.mark.slow  # together


def empty(d_in: int, d_out: int, key: str = "module/1") -> GradientSketch:
    return GradientSketch.empty(d_in, d_out, seed=0, key=key, device=torch.device("cpu"))


def test_low_rank_gradients_are_found_exactly() -> None:
    torch.manual_seed(0)
    x, g = torch.randn(50, 3) @ torch.randn(3, 40), torch.randn(50, 3) @ torch.randn(3, 30)
    sketch = empty(40, 30)
    sketch.add(x[:20].view(4, 5, 40), g[:20].view(4, 5, 30))
    sketch.add(x[20:], g[20:])
    left, value, right = torch.linalg.svd(g.t() @ x / 2)
    directions = sketch.directions(3, steps=2)
    torch.testing.assert_close(directions.value, value[:3], rtol=1e-3, atol=0)
    torch.testing.assert_close((directions.right @ right[:3].t()).abs(), torch.eye(3), rtol=0, atol=1e-3)
    torch.testing.assert_close((directions.left @ left[:, :3]).abs(), torch.eye(3), rtol=0, atol=1e-3)


def test_what_it_hears_is_the_gradient_of_the_frozen_weight() -> None:
    trainer = make_trainer(tiny_config("lora"))
    apply(trainer.adapters, [SketchGradients((0, 3))], None, step=1)
    module = trainer.adapters[3]
    module.base_layer.weight.requires_grad_(True)
    batch = tiny_tokens().batch(range(8))
    trainer._loss(batch).backward()
    gradient = module.base_layer.weight.grad
    torch.testing.assert_close(module.sketch.forward_sum, gradient @ module.sketch.omega, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(module.sketch.backward_sum, gradient.t() @ module.sketch.psi, rtol=1e-4, atol=1e-7)
    assert trainer.adapters[1].sketch is None


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
    assert len(empty(6, 5).directions(3, steps=1).value) == 0
    broken = empty(6, 5)
    broken.add(torch.full((2, 6), float("nan")), torch.ones(2, 5))
    assert len(broken.directions(3, steps=1).value) == 0


def test_listening_changes_no_weight() -> None:
    silent, heard = (make_trainer(tiny_config("lora", adapter__dropout=0.1)) for _ in range(2))
    apply(heard.adapters, [SketchGradients(tuple(range(len(heard.adapters))))], None, step=0)
    for trainer in (silent, heard):
        trainer.train(MemoryKeeper())
    assert same(weights(silent), weights(heard))


COMMIT = {"name": "dynamic", "min_rank": 0}


@pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.torture), 3, 4, 5, pytest.param(9, marks=pytest.mark.torture)]
)
def test_a_resume_in_the_middle_of_listening_is_bit_equal(step: int) -> None:
    config = tiny_config("dynamic", strategy=COMMIT, log__checkpoint_every=1, train__lr=1e-2)
    keeper, whole = MemoryKeeper(), make_trainer(config)
    whole.train(keeper)
    resumed = make_trainer(config, state=keeper.state(step))
    resumed.train(MemoryKeeper())
    assert same(weights(whole), weights(resumed))


def test_the_first_event_spends_the_budget_by_what_was_promised() -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy={**COMMIT, "moves": 0}, train__lr=1e-2))
    first = trainer.strategy.events(trainer.total, 2)[0]
    seen: dict[int, list[int]] = {}
    trainer.on_step = lambda t: seen.update({t.step: t.adapters.ranks})
    trainer.train(MemoryKeeper())
    assert seen[first - 1] == seen[1]
    assert seen[first] != seen[1]
    assert seen[first] == seen[trainer.total], "nothing moves after the first event"
    count = trainer.adapters.adapter_parameter_count()
    cheapest = min(trainer.adapters.costs)
    assert count["budget"] - cheapest < count["active"] + count["gate"] <= count["budget"]
    assert all(module.sketch is None for module in trainer.adapters)


@pytest.mark.parametrize("rank", [2, 8, 12])
def test_the_first_event_leaves_no_budget_unspent_at_any_rank(rank: int) -> None:
    fields = {**COMMIT, "gates": "off", "moves": 0}
    trainer = make_trainer(tiny_config("dynamic", strategy=fields, adapter__rank=rank, train__lr=1e-2))
    trainer.train(MemoryKeeper())
    count = trainer.adapters.adapter_parameter_count()
    assert count["budget"] - max(trainer.adapters.costs) < count["active"] <= count["budget"]
    assert max(trainer.adapters.ranks) > rank > min(trainer.adapters.ranks), "capacity moved"


def test_a_floor_takes_the_first_promises() -> None:
    gains = [np.array([9.0, 1.0]), np.array([5.0, 4.0])]
    assert greedy_ranks(gains, [1, 1], [2, 2], budget=3, min_rank=1) == [1, 2]


def test_nothing_usable_heard_keeps_the_budget_spread() -> None:
    silent = [np.zeros(0), np.array([np.nan, np.nan]), np.zeros(4)]
    assert greedy_ranks(silent, [3, 3, 3], [4, 4, 4], budget=18, min_rank=0) == [2, 2, 2]


def test_within_groups_a_loud_layer_asks_for_no_more_than_a_quiet_one() -> None:
    quiet, loud = [np.array([4.0, 1.0]), np.array([2.0, 1.0])], [np.array([400.0, 100.0]), np.array([200.0, 100.0])]
    gains, cost, layers = [*quiet, *loud], [1, 1, 1, 1], [0, 0, 1, 1]
    assert greedy_ranks(gains, cost, [2] * 4, budget=4, min_rank=0) == [0, 0, 2, 2]
    relative = within_groups(gains, cost, layers)
    assert greedy_ranks(relative, cost, [2] * 4, budget=4, min_rank=0) == [1, 1, 1, 1]
    for half in (relative[:2], relative[2:]):
        assert np.concatenate(half).sum() == pytest.approx(2.0), "the mean of a layer is 1 a parameter"


def test_within_groups_what_cannot_be_compared_stays_out_of_the_mean() -> None:
    gains = [np.array([3.0, np.nan]), np.zeros(2), np.array([5.0])]
    gains_within = within_groups(gains, [3, 2, 5], [0, 1, None])
    assert gains_within[0][0] == pytest.approx(3.0)
    assert np.isnan(gains_within[0][1])
    assert not gains_within[1].any()
    assert gains_within[2][0] == pytest.approx(5.0)


def test_within_families_a_loud_family_asks_for_no_more_than_a_quiet_one() -> None:
    fields = {"name": "dynamic", "gates": "off", "rank_by": "family"}
    trainer = make_trainer(tiny_config("dynamic", strategy=fields, adapter__rank=4))
    adapters = trainer.adapters
    kinds = np.array([module.info.kind for module in adapters])
    loud = kinds[0]
    sketched(trainer, lambda info: 100.0 if info.kind == loud else 1.0)
    ranks = np.array(adapters.ranks)
    assert abs(ranks[kinds == loud].mean() - ranks[kinds != loud].mean()) < 1


def sketched(trainer: Trainer, size: Callable[[ModuleInfo], float]) -> None:
    """Put a sketch of random gradients, as large as `size` says, on every module, and reallocate."""
    torch.manual_seed(0)
    for module in trainer.adapters:
        module.sketch = empty(module.info.d_in, module.info.d_out, module.info.name)
        x, g = torch.randn(50, module.info.d_in), torch.randn(50, module.info.d_out)
        module.sketch.add(x, g * size(module.info))
    trainer.strategy.accumulation.steps = 1
    edits = trainer.strategy._one_shot(trainer.adapters, np.ones((len(trainer.adapters), 8)), Step(4, 20, 1e-2))
    apply(trainer.adapters, edits, None, step=4)


@pytest.mark.parametrize("rank_by", ["gains", "layer"])
def test_the_first_reallocation_compares_gains_in_its_scope(rank_by: str) -> None:
    fields = {"name": "dynamic", "gates": "off", "rank_by": rank_by}
    trainer = make_trainer(tiny_config("dynamic", strategy=fields, adapter__rank=4))
    adapters = trainer.adapters
    layers = np.array([module.info.layer for module in adapters])
    sketched(trainer, lambda info: 100.0 if info.layer == 1 else 1.0)
    quiet, loud = (float(np.mean(np.array(adapters.ranks)[layers == layer])) for layer in (0, 1))
    count = adapters.adapter_parameter_count()
    assert count["budget"] - max(adapters.costs) < count["active"] <= count["budget"]
    assert loud > quiet + 3 if rank_by == "gains" else abs(loud - quiet) < 1


def test_a_new_row_points_where_the_edit_says() -> None:
    adapters = make_trainer(tiny_config("dynamic")).adapters
    direction = torch.zeros(adapters[0].info.d_in)
    direction[2] = 5.0
    usual = adapters[0].lora_A[1].norm()
    apply(adapters, [Drop(0, 0), Grow(0, direction=direction)], None, step=1)
    torch.testing.assert_close(adapters[0].lora_A[1, 2].abs(), usual)
    assert not adapters[0].lora_B[:, 1].any()


def test_the_promise_is_the_gain_of_a_signed_step() -> None:
    torch.manual_seed(1)
    gradient = torch.outer(torch.randn(7), torch.randn(5))
    left, value, right = torch.linalg.svd(gradient)
    directions = Directions(left[:, :1].t(), value[:1], right[:1])
    a, lr, scaling = right[0] / 3**0.5, 1e-3, 2.0
    slope = scaling * gradient @ a  # ∂L/∂b
    expected = float(lr * slope.abs().sum()) * 10
    assert predicted_gain(directions, scaling=scaling, lr=lr, steps=10)[0] == pytest.approx(expected, rel=1e-5)


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


def test_an_event_right_at_the_start_is_listened_for_from_the_first_step() -> None:
    fields = {"name": "dynamic", "warmup_steps": 0, "allocate_every": 4}
    trainer = make_trainer(tiny_config("dynamic", strategy=fields, train__lr=1e-2))
    heard: dict[int, int] = {}
    trainer.on_step = lambda t: heard.update({t.step: t.strategy.accumulation.steps})
    ranks: dict[int, list[int]] = {}
    trainer.strategy.watch = lambda step: ranks.update({step.index - 1: trainer.adapters.ranks})
    trainer.train(MemoryKeeper())
    assert [heard[step] for step in (1, 2, 3)] == [1, 2, 3]
    assert ranks[4] != ranks[3] == ranks[0], "the first event sets the ranks"


@pytest.mark.parametrize("total", [20, 44, 100, 160, 400])
def test_only_the_first_event_is_listened_for(total: int) -> None:
    phases = make_trainer(tiny_config("dynamic", train__steps=total)).strategy.phases(total)
    heard, listens = [], False
    for step in range(1, total + 1):
        heard += [step] if listens else []
        for edit in GradientAccumulation().turn(step, phases, 12):
            listens = bool(edit.modules)
    assert heard
    assert heard[-1] == phases.first_event
    assert len(heard) <= ACCUMULATED_STEPS


def planted(values: list[float], loud: int = 1) -> GradientSketch:
    """Return a sketch whose whitened gradient has these singular values; inputs differ in size by up to `loud`."""
    torch.manual_seed(0)
    d_in, d_out, n = 48, 40, 4000
    size = torch.logspace(0, np.log10(loud), d_in) if loud > 1 else torch.ones(d_in)
    left, right = torch.linalg.qr(torch.randn(d_out, d_out)).Q, torch.linalg.qr(torch.randn(d_in, d_in)).Q
    spectrum = torch.tensor(values)
    x = torch.randn(n, d_in)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.t() @ x / n)).t()  # second moment 1: Σ g xᵀ is exactly the plan
    gradient = left[:, : len(values)] * spectrum @ right[: len(values)]
    sketch = GradientSketch.empty(d_in, d_out, seed=0, key="m", device=torch.device("cpu"), whitened=True)
    sketch.add(x * size, x @ gradient.t() / n)
    return sketch


@pytest.mark.parametrize("loud", [1, 3])
def test_the_effective_rank_is_that_of_the_planted_spectrum_whatever_the_size_of_inputs(loud: int) -> None:
    values = [3.0, 3.0, 2.0, 1.0, 0.5]
    share = np.square(values) / np.square(values).sum()
    expected = float(np.exp(-(share * np.log(share)).sum()))
    assert entropy_rank(planted(values, loud).whitened_spectrum()) == pytest.approx(expected, rel=0.05)
    assert entropy_rank(planted([7.0 * value for value in values], loud).whitened_spectrum()) == pytest.approx(
        expected, rel=0.05
    )


def test_without_whitening_loud_inputs_hide_the_rank() -> None:
    sketch = planted([1.0] * 12, loud=30)
    assert entropy_rank(sketch.whitened_spectrum()) > 11.5
    assert entropy_rank(sketch.directions(32, steps=1).value) < 10.5


def test_equal_directions_count_each_and_none_counts_nothing() -> None:
    assert entropy_rank(torch.full((7,), 2.0)) == pytest.approx(7.0)
    assert entropy_rank(torch.zeros(3)) == entropy_rank(torch.zeros(0)) == 0.0
    assert len(empty(6, 5).whitened_spectrum()) == 0


def test_padding_counts_as_no_input() -> None:
    padded, plain = (
        GradientSketch.empty(6, 5, seed=0, key="m", device=torch.device("cpu"), whitened=True) for _ in "12"
    )
    x, g = torch.randn(9, 6), torch.randn(9, 5)
    plain.add(x, g)
    padded.add(torch.cat([x, torch.full((4, 6), 50.0)]), torch.cat([g, torch.zeros(4, 5)]))
    torch.testing.assert_close(padded.input_sum, plain.input_sum)


SPECTRAL = {"name": "dynamic", "rank_by": "spectral", "gates": "off", "min_rank": 0, "moves": 0}


def test_spectral_ranks_follow_the_effective_rank_and_keep_the_budget() -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy=SPECTRAL, adapter__rank=4))
    adapters = trainer.adapters
    torch.manual_seed(0)
    wide = [m for m in range(len(adapters)) if m % 3 == 0]
    for m, module in enumerate(adapters):
        info = module.info
        module.sketch = GradientSketch.empty(
            info.d_in, info.d_out, seed=0, key=info.name, device=torch.device("cpu"), whitened=True
        )
        directions = 12 if m in wide else 2
        x = torch.randn(200, info.d_in)
        module.sketch.add(x, 100.0 * x[:, :directions] @ torch.randn(directions, info.d_out))
    edits = trainer.strategy._one_shot(adapters, np.ones((len(adapters), 8)), Step(4, 20, 1e-2))
    apply(adapters, edits, None, step=4)
    ranks = np.array(adapters.ranks)
    assert ranks[wide].min() > np.delete(ranks, wide).max()
    count = adapters.adapter_parameter_count()
    assert count["budget"] - max(adapters.costs) < count["active"] <= count["budget"]


@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_spectral_run_resumes_to_the_bit_and_moves_rank_once(step: int) -> None:
    config = tiny_config("dynamic", strategy=SPECTRAL, adapter__rank=4, log__checkpoint_every=1, train__lr=1e-2)
    keeper, run = MemoryKeeper(), make_trainer(config)
    run.train(keeper)
    resumed = make_trainer(config, state=keeper.state(step))
    resumed.train(MemoryKeeper())
    assert same(weights(run), weights(resumed))
    assert len(set(run.adapters.ranks)) > 1
    assert all(module.sketch is None for module in run.adapters)


def test_the_random_control_ignores_the_spectrum() -> None:
    ranks = []
    for rank_by in ("gains", "spectral"):
        fields = {**SPECTRAL, "rank_by": rank_by, "allocation": "random"}
        run = make_trainer(tiny_config("dynamic", strategy=fields, adapter__rank=4, train__lr=1e-2))
        run.train(MemoryKeeper())
        ranks.append(run.adapters.ranks)
    assert ranks[0] == ranks[1]
    assert len(set(ranks[0])) > 1
