"""SoRA: the proximal map in closed form, the staircase, dead gates, and a run by hand that it must follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import dynlora
from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config
from dynlora.engine.edits.components import ShrinkScales, shrunk
from dynlora.strategies import build
from dynlora.strategies.sora import thresholds


def test_prox_by_hand() -> None:
    values = torch.tensor([0.15, -0.15, 0.1, 0.05, 0.3, -0.3, 0.0])
    exact = torch.tensor([0.05, -0.05, 0.0, 0.0, 0.2, -0.2, 0.0])
    official = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.2, -0.2, 0.0])  # shrinks first, then zeroes what is below 0.1
    assert torch.allclose(shrunk(values, 0.1), exact, atol=1e-7)
    assert torch.allclose(shrunk(values, 0.1, dead_zone=0.2), official, atol=1e-7)


@given(st.floats(-3, 3), st.floats(0, 2), st.floats(-0.5, 0.5))
def test_prox_is_the_minimiser(value: float, threshold: float, aside: float) -> None:
    def objective(x: float) -> float:
        return 0.5 * (x - value) ** 2 + threshold * abs(x)

    minimiser = float(shrunk(torch.tensor(value, dtype=torch.float64), threshold))
    assert objective(minimiser) <= objective(minimiser + aside) + 1e-12


def test_thresholds_by_hand() -> None:
    assert thresholds(10, 7, 0.3) == pytest.approx((0, 0, 0, *(k / 7 for k in range(1, 8))))
    assert thresholds(8, 2, 0.5) == (0, 0, 0, 0, 0.5, 0.5, 1, 1)
    assert thresholds(3, 1, 0.0) == (1, 1, 1)
    fixed = build("sora", {"schedule": "fixed", "xi": 3e-4})
    assert [fixed.threshold(step, 50) for step in (1, 25, 50)] == [3e-4] * 3


@given(st.integers(1, 400), st.integers(1, 12), st.floats(0, 0.99), st.floats(0, 3))
def test_a_run_takes_the_same_off_whatever_its_length(total: int, stages: int, dense: float, shrinkage: float) -> None:
    sora = build("sora", {"stages": stages, "dense_share": dense, "shrinkage": shrinkage})
    taken = [sora.threshold(step, total) for step in range(1, total + 1)]
    assert sum(taken) == pytest.approx(shrinkage, abs=1e-9)
    assert taken == sorted(taken)


@pytest.mark.parametrize(("prox", "xi"), [("exact", 0.02), ("official", 0.02), ("exact", 0.0)])
def test_follows_a_run_by_hand(prox: str, xi: float) -> None:
    """With ξ = 0 it is LoRA with a trained gate."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False))
    base = model[0].weight.detach().clone()
    fields = {"prox": prox, "schedule": "fixed", "xi": xi, "sparsity": 0.5, "gate_lr_ratio": 3.0, "travel": 0.0}
    attached = dynlora.attach(model, strategy="sora", targets=["0"], budget=4, steps=30, lr=1e-2, alpha=6, **fields)
    module = attached.adapters[0]
    A, B, gate = (tensor.detach().clone().requires_grad_() for tensor in (module.lora_A, module.lora_B, module.scale))
    by_hand = torch.optim.AdamW([A, B], lr=1e-2)
    of_gates = torch.optim.AdamW([gate], lr=3e-2, weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(29):  # the last step takes the dead ones off
        x, y = torch.randn(16, 6, generator=generator), torch.randn(16, 5, generator=generator)
        (F.mse_loss(model(x), y) + attached.penalty()).backward()
        attached.step()
        update = (x @ A.t() * gate) @ B.t() * 1.5
        (F.mse_loss(x @ base.t() + update, y) + 0.5 * gate.abs().sum() / 4).backward()
        for optimizer in (by_hand, of_gates):
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            size = (gate.abs() - xi).clamp_min(0)
            size = torch.where(gate.abs() < 2 * xi, 0, size) if prox == "official" else size
            gate.copy_(gate.sign() * size)
        for parameter, wanted in ((module.lora_A, A), (module.lora_B, B), (module.scale, gate)):
            assert torch.allclose(parameter, wanted, atol=1e-6)
    assert bool((module.scale == 0).any()) == (xi > 0)
    assert (module.scale != 0).any()


@pytest.mark.parametrize(("xi", "revives"), [(5e-2, False), (1e-3, True)])
def test_a_dead_gate_stays_dead_unless_a_step_exceeds_the_threshold(xi: float, revives: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False))
    attached = dynlora.attach(
        model, strategy="sora", targets=["0"], budget=3, steps=9, lr=1e-2, schedule="fixed", xi=xi, travel=0.0
    )
    module = attached.adapters[0]
    with torch.no_grad():
        module.lora_B.normal_()
        module.scale[1] = 0
    seen = []
    for _ in range(8):
        model(torch.randn(8, 6)).pow(2).mean().backward()
        seen.append(float(module.scale.grad[1]))
        attached.step()
        if not revives:
            assert module.scale[1] == 0
    assert any(seen), "the gradient of a dead gate is no longer heard"
    assert bool(module.scale[1]) == revives


def test_more_shrinkage_leaves_fewer_components() -> None:
    held = []
    for shrinkage in (0.0, 2.0, 8.0):
        recorder = ListRecorder()
        fields = {"name": "sora", "shrinkage": shrinkage}
        trainer = make_trainer(tiny_config("sora", strategy=fields, adapter__rank=4), recorder=recorder)
        trainer.train(MemoryKeeper())
        held.append(sum(trainer.adapters.ranks))
        assert recorder.vectors["rank"][20].sum() == held[-1]
        assert sum(recorder.scalars["threshold", "train"].values()) == pytest.approx(shrinkage, rel=1e-4)
    assert held[0] == 4 * 12
    assert held[0] > held[1] > held[2]


def test_gates_have_their_own_stream_group_and_record() -> None:
    recorder = ListRecorder()
    sora, lora = make_trainer(tiny_config("sora"), recorder=recorder), make_trainer(tiny_config("lora"))
    assert all(torch.equal(a.lora_A, b.lora_A) for a, b in zip(sora.adapters, lora.adapters, strict=True))
    gates = torch.cat([module.scale.detach() for module in sora.adapters])
    assert len(gates.unique()) == len(gates)
    assert gates.abs().mean() == pytest.approx(0.8, abs=0.3)
    group = next(g for g in sora.optimizer.param_groups if any(p is sora.adapters[0].scale for p in g["params"]))
    assert [id(p) for p in group["params"]] == [id(module.scale) for module in sora.adapters]
    assert group["weight_decay"] == 0
    assert group["peak_lr"] == pytest.approx(2 * 4 / 3 * 0.5 / 20)
    sora.train(MemoryKeeper())
    assert list(recorder.vectors["factor"]) == [0, 5, 10, 15, 20]
    np.testing.assert_array_equal(recorder.vectors["factor"][0], gates.numpy())
    assert np.isnan(recorder.vectors["factor"][20]).sum() == sum(2 - module.rank for module in sora.adapters)


def test_a_ratio_of_zero_holds_the_gates() -> None:
    trainer = make_trainer(tiny_config("sora", strategy={"name": "sora", "gate_lr_ratio": 0.0, "shrinkage": 0.0}))
    before = [module.scale.detach().clone() for module in trainer.adapters]
    trainer.train(MemoryKeeper())
    assert all(torch.equal(a, m.scale) for a, m in zip(before, trainer.adapters, strict=True))
    assert trainer.adapters[0].lora_B.any()


def test_the_shrinkage_moves_nothing_but_scales_and_keeps_them_in_limits() -> None:
    trainer = make_trainer(tiny_config("sora"))
    A = trainer.adapters[0].lora_A.detach().clone()
    with torch.no_grad():
        trainer.adapters[0].scale.copy_(torch.tensor([2.0, -0.3]))
    ShrinkScales(0.25, limits=(0.0, 1.0)).perform(trainer.adapters, None, 1)
    assert trainer.adapters[0].scale.tolist() == [1.0, 0.0]
    assert torch.equal(A, trainer.adapters[0].lora_A)
