"""GoRA: ranks and the first step down the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora import strategies
from dynlora.contracts.harness import (
    ARCHITECTURES,
    TASK,
    ListRecorder,
    MemoryKeeper,
    make_trainer,
    same,
    tiny_config,
    tiny_tokens,
    weights,
)
from dynlora.contracts.harness import tiny_model as fresh_model
from dynlora.engine.allocation.solvers import proportional_ranks
from dynlora.engine.data.batches import calibration_batches
from dynlora.engine.initializers import weight_gradients
from dynlora.engine.loop.trainer import Trainer
from dynlora.errors import ConfigError


def gora(**fields: Any) -> dict[str, Any]:
    """Return the strategy's settings."""
    return {"name": "gora", **fields}


def look_loss(trainer: Trainer) -> float:
    """Return the loss on the batches the gradient came from."""
    trainer.model.eval()
    with torch.no_grad():
        losses = [
            TASK.example_loss(trainer.model(**b).logits, b["labels"]).mean()
            for b in calibration_batches(tiny_tokens(), 8, 0)
        ]
    return float(torch.stack(losses).mean())


def steep_model(architecture: str) -> Any:
    """Return the tiny model; BERT's with a larger head, for its first step to stand far out of the losses' rounding."""
    model = fresh_model(architecture)
    if architecture == "bert":
        with torch.no_grad():
            model.classifier.weight.mul_(50)
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_step_goes_down(architecture: str) -> None:
    off, on = (
        make_trainer(tiny_config("gora", strategy=gora(gora_lr=lr)), model=steep_model(architecture))
        for lr in (0.0, 0.05)
    )
    base = look_loss(off)
    names = {module.info.name: module.base_layer for module in off.adapters}
    G = weight_gradients(off.model, names, calibration_batches(tiny_tokens(), 8, 0), TASK)
    drop = -sum(float((G[m.info.name] * m.delta_weight().detach()).sum()) for m in on.adapters)
    assert drop > 1e-5, "a hundred times what the losses are known to"
    assert base - look_loss(on) == pytest.approx(drop, rel=0.2)
    for module in on.adapters:
        gradient = G[module.info.name]
        assert float(module.delta_weight().detach().norm()) == pytest.approx(0.05 * float(gradient.norm()), rel=1e-3)


@pytest.mark.parametrize(("architecture", "rank"), [("llama", 3), ("gpt2", 2)])
def test_without_its_ranks_and_its_start_it_is_lora(architecture: str, rank: int) -> None:
    off = gora(gora_lr=0.0, scaling="standard", smallest_rank=rank, largest_rank=rank)
    runs = [
        make_trainer(
            tiny_config("x", strategy=s, adapter__rank=rank, adapter__dropout=0.1, train__lr=1e-2), architecture
        )
        for s in ({"name": "lora"}, off)
    ]
    for trainer in runs:
        trainer.train(MemoryKeeper())
    assert same(*map(weights, runs))


def test_ranks_by_hand() -> None:
    cost = np.array([10, 10, 20])
    least, most = np.array([1, 1, 1]), np.array([8, 8, 8])
    # 80 parameters: shares 40, 20, 20 buy 4, 2 and 1
    assert proportional_ranks(np.array([4.0, 2.0, 1.0]), cost, budget=80, least=least, most=most) == [4, 2, 1]
    # the first one's share is cut at 8, the rest goes to the others in proportion
    assert proportional_ranks(np.array([1e6, 2.0, 1.0]), cost, budget=160, least=least, most=most) == [8, 4, 2]
    # nothing known: even
    assert proportional_ranks(np.array([np.nan, 0.0, -1.0]), cost, budget=80, least=least, most=most) == [2, 2, 2]
    # floors that cost too much are lowered, the dearest first, and what that frees is spent
    assert proportional_ranks(np.ones(3), cost, budget=30, least=least, most=most) == [2, 1, 0]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), n=st.integers(1, 8), budget=st.integers(0, 2000))
def test_ranks_keep_limits_and_spend_the_budget(data: st.DataObject, n: int, budget: int) -> None:
    def numbers(low: int, high: int) -> np.ndarray:
        return np.array(data.draw(st.lists(st.integers(low, high), min_size=n, max_size=n)))

    cost, least, more = numbers(1, 90), numbers(0, 3), numbers(0, 9)
    wanted = np.array(data.draw(st.lists(st.floats(allow_nan=True, width=32), min_size=n, max_size=n)))
    most = least + more
    ranks = np.array(proportional_ranks(wanted, cost, budget=budget, least=least, most=most))
    assert ranks @ cost <= budget
    assert (ranks <= most).all()
    if least @ cost <= budget:
        assert (ranks >= least).all()
    assert all(cost[m] > budget - ranks @ cost for m in range(n) if ranks[m] < most[m])


def test_importance_sets_ranks_within_limits_and_budget() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("gora"), recorder=recorder)
    names = [module.info.name for module in trainer.adapters]
    base = fresh_model()
    G = weight_gradients(
        base, {name: base.get_submodule(name) for name in names}, calibration_batches(tiny_tokens(), 8, 0), TASK
    )
    worth = np.array([float((base.get_submodule(name).weight.detach() * G[name]).abs().mean()) for name in names])
    assert np.allclose(trainer.strategy.importance, worth / worth.sum(), rtol=1e-4)
    ranks = np.array([module.rank for module in trainer.adapters])
    assert ranks.min() >= 1
    assert ranks.max() <= 8
    assert len(set(ranks.tolist())) > 1
    density = worth / np.array([module.info.cost for module in trainer.adapters])
    assert ranks[np.argmax(density)] == ranks.max()
    count = trainer.adapters.adapter_parameter_count()
    assert count["budget"] - 64 < count["active"] <= count["budget"]
    trainer.train(MemoryKeeper())
    assert recorder.vectors["gradient_importance"][20].sum() == pytest.approx(1, abs=1e-5)


def test_scaling_follows_the_own_rank() -> None:
    rooted, plain = (
        make_trainer(tiny_config("gora")),
        make_trainer(tiny_config("gora", strategy=gora(scaling="standard"))),
    )
    for module, other in zip(rooted.adapters, plain.adapters, strict=True):
        assert module.scaling == pytest.approx(4 / module.rank**0.5)
        assert other.scaling == pytest.approx(4 / other.rank)


@pytest.mark.parametrize("fields", [{"smallest_rank": 3}, {"largest_rank": 1}])
def test_limits_that_exclude_the_uniform_rank_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        strategies.build("gora", fields).check(20, 2)
