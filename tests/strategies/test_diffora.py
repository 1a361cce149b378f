"""DiffoRA: the search for modules, its gradient, what it picks, and what picking does."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dynlora import attach, strategies
from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config, tiny_model, tiny_tokens
from dynlora.engine import edits
from dynlora.engine.adapt import adapt
from dynlora.engine.context import Step
from dynlora.engine.data.held_back import HeldBack
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.base_model import BaseModel
from dynlora.engine.model.modules import ModuleInfo
from dynlora.errors import ConfigError
from dynlora.strategies.diffora import Choice, Look, TakeIn, Weigh, adam_step
from dynlora.tasks.regression import Regression

WIDTH, LAYERS, KINDS = 6, 2, ("q", "k", "v")
PLANTED = ("layers.0.v", "layers.1.q")


def diffora(**fields: Any) -> dict[str, Any]:
    """Return the strategy's settings."""
    return {"name": "diffora", **fields}


class Block(nn.Module):
    """Three modules side by side."""

    def __init__(self) -> None:
        super().__init__()
        for kind in KINDS:
            self.add_module(kind, nn.Linear(WIDTH, WIDTH, bias=False))


class Parallel(nn.Module):
    """Modules that each see an input of their own and add up: what one learns, no other can."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 6 modules, WIDTH) to (batch, WIDTH)."""
        modules = [getattr(layer, kind) for layer in self.layers for kind in KINDS]
        return torch.stack([module(x[:, index]) for index, module in enumerate(modules)]).sum(0)


class Rows:
    """Rows whose target is what the model says with more in the planted modules."""

    def __init__(self, n: int, seed: int) -> None:
        torch.manual_seed(0)
        teacher = Parallel()
        with torch.no_grad():
            for name in PLANTED:
                teacher.get_submodule(name).weight += 2 * torch.randn(WIDTH, 1) @ torch.randn(1, WIDTH) / WIDTH**0.5
            self.x = torch.randn(n, LAYERS * len(KINDS), WIDTH, generator=torch.Generator().manual_seed(seed))
            self.y = teacher(self.x)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Any, device: Any = None) -> dict[str, Tensor]:
        """Return rows as a batch."""
        return {"x": self.x[np.asarray(rows)], "labels": self.y[np.asarray(rows)]}


def planted(total: int, **fields: Any) -> tuple[Any, Adapters, HeldBack, nn.Module]:
    """Return the method on the model of parallel modules, met and started."""
    torch.manual_seed(0)
    model = Parallel()
    strategy = strategies.build("diffora", fields)
    adapters = adapt(
        BaseModel(model, None, [], Path(), Regression()),
        strategy,
        rank=1,
        lora_alpha=2,
        dropout=0.0,
        targets=None,
        total=total,
        seed=0,
        batches=lambda n: [],
    )
    task = Regression()
    held_back = HeldBack(model, lambda model, batch: model(**batch), Rows(64, 1), 32, nullcontext, task)
    strategy.attach_held_back(held_back)
    strategy.start(adapters)
    return strategy, adapters, held_back, model


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_planted_task_selects_the_modules_it_needs(scope: str) -> None:
    total, rows = 120, Rows(128, 2)
    share = {"search_share": 0.5, "keep": 1 / 3, "growth_limit": 6.0, "search_lr": 0.05, "scope": scope}
    strategy, adapters, held_back, model = planted(total, **share)
    optimizer = torch.optim.AdamW([p for m in adapters for p in m.adapter_parameters().values()], lr=1e-2)
    for index in range(1, total + 1):
        batch = rows.batch(np.arange(index * 32, index * 32 + 32) % len(rows))
        held_back.batch_loss(batch).backward()
        optimizer.step()
        with torch.no_grad():
            made = strategy.allocate(adapters, Step(index, total, 1e-2))
        edits.apply(adapters, made, optimizer, step=index)
        optimizer.zero_grad()
    kept = {module.info.name for module in adapters if module.rank}
    assert kept == set(PLANTED)
    assert adapters.slack == 0  # 6 components of 12 parameters, 3 a module
    assert [module.rank for module in adapters if module.rank] == [3, 3]
    assert held_back.reserve_loss() < 0.1 * strategy.gap[0]


def test_the_logits_gradient_is_that_of_the_loss() -> None:
    strategy, adapters, held_back, _ = planted(20)
    choice, draw = strategy.choice, torch.Generator().manual_seed(3)
    logits = torch.randn(len(adapters), generator=draw)
    with torch.no_grad():
        for module in adapters:
            module.lora_B.normal_(generator=draw)

    def loss(values: Tensor) -> float:
        edits.apply(adapters, [Weigh(choice.weights(values))], None, step=1)
        return float(held_back.batch_loss(held_back.batch(0)).detach())

    slopes = []
    for index in range(len(adapters)):
        step = torch.zeros(len(adapters))
        step[index] = 1e-2
        slopes.append((loss(logits + step) - loss(logits - step)) / 2e-2)
    loss(logits)
    up = [module.lora_B for module in adapters]
    loss_sum, gradients = held_back.gradients(held_back.batch(0), up)
    pull = torch.stack([(b * g).sum() for b, g in zip(up, gradients, strict=True)]).detach()
    assert float(loss_sum) == pytest.approx(loss(logits))
    assert choice.logit_gradient(pull, choice.weights(logits)).tolist() == pytest.approx(slopes, rel=1e-2, abs=1e-3)
    assert all(tensor.grad is None for tensor in up)


def test_weights_and_choice_by_hand() -> None:
    infos = [ModuleInfo(str(i), layer, "k", 4, 4) for i, layer in enumerate([0, 0, 0, 0, 1, 1, None])]
    choice = Choice.among(infos, torch.device("cpu"))
    weights = choice.weights(torch.tensor([0.0, 0.0, 0.0, 0.0, np.log(3.0), 0.0, 5.0]))
    assert weights.tolist() == pytest.approx([1, 1, 1, 1, 1.5, 0.5, 1])
    assert choice.chosen(weights, 0.5, overall=False).tolist() == [True, True, False, False, True, False, True]
    assert choice.chosen(weights, 0.26, overall=False).tolist() == [True, True, False, False, True, False, True]
    assert choice.chosen(weights, 0.25, overall=True).tolist() == [True, False, False, False, True, False, False]
    assert float(choice.entropy(torch.ones(7))) == pytest.approx(1)
    assert float(choice.entropy(torch.tensor([4.0, 0, 0, 0, 2, 0, 1]))) == pytest.approx(0)


@settings(max_examples=50, deadline=None)
@given(
    layers=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    share=st.floats(0.05, 1),
    seed=st.integers(0, 999),
    ties=st.booleans(),
)
def test_exactly_so_many_stay(layers: list[int], share: float, seed: int, ties: bool) -> None:
    choice = Choice.among([ModuleInfo(str(i), n, "k", 4, 4) for i, n in enumerate(layers)], torch.device("cpu"))
    logits = torch.randn(len(layers), generator=torch.Generator().manual_seed(seed))
    weights = choice.weights(logits.round() if ties else logits)
    count = {layer: int(np.ceil(share * layers.count(layer) - 1e-9)) for layer in layers}
    kept = choice.chosen(weights, share, overall=False)
    assert all(int(kept[[n == layer for n in layers]].sum()) == max(1, count[layer]) for layer in layers)
    assert int(choice.chosen(weights, share, overall=True).sum()) == max(1, int(np.ceil(share * len(layers) - 1e-9)))
    for layer in layers:
        assert float(weights[[n == layer for n in layers]].mean()) == pytest.approx(1, abs=1e-5)


def test_adam_steps_are_those_of_torch() -> None:
    value, moments = torch.tensor([1.0, -2.0]), {}
    other = nn.Parameter(value.clone())
    optimizer = torch.optim.Adam([other], lr=0.1, betas=(0.5, 0.999))
    for number in range(1, 6):
        gradient = torch.tensor([0.3 * number, -1.0 / number])
        value, moments = adam_step(value, gradient, moments, number, 0.1)
        other.grad = gradient
        optimizer.step()
        assert torch.allclose(value, other.detach(), atol=1e-6)


def test_taking_weights_in_keeps_the_function_and_the_next_gradient() -> None:
    trainer = make_trainer(tiny_config("diffora"))
    batch = tiny_tokens().batch(range(8))
    with torch.no_grad():
        for module in trainer.adapters:
            module.lora_B.normal_(generator=torch.Generator().manual_seed(0))
    weights = torch.linspace(0.5, 2, len(trainer.adapters))
    edits.apply(trainer.adapters, [Weigh(weights)], trainer.optimizer, step=1)
    trainer.model(**batch).loss.backward()
    trainer.optimizer.step()
    module = trainer.adapters[3]
    state = trainer.optimizer.state[module.lora_B]
    first, second = state["exp_avg"].clone(), state["exp_avg_sq"].clone()
    before = trainer.model(**batch).logits.detach()
    edits.apply(trainer.adapters, [TakeIn()], trainer.optimizer, step=1)
    assert torch.allclose(trainer.model(**batch).logits, before, atol=1e-6)
    assert module.scale is not None
    assert (module.scale == 1).all()
    assert torch.allclose(state["exp_avg"][:, :2], first[:, :2] / weights[3])
    assert torch.allclose(state["exp_avg_sq"][:, :2], second[:, :2] / weights[3] ** 2)


def test_a_look_comes_after_the_edits_before_it() -> None:
    trainer = make_trainer(tiny_config("diffora"))
    seen: list[int] = []
    look = Look(lambda: seen.append(trainer.adapters[0].rank))
    edits.apply(trainer.adapters, [edits.Drop(0, 0), look], None, step=1)
    assert seen == [1]
    assert edits.describe([look, TakeIn(), Weigh(torch.ones(12))]) == []


def test_what_is_left_is_lora_on_the_chosen_modules() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("diffora", train__lr=1e-2), recorder=recorder)
    reserved = len(trainer.strategy.held_back.reserve)
    assert (reserved, len(trainer.tokens)) == (10, 86)
    trainer.train(MemoryKeeper())
    kept = recorder.vectors["selection"][20].astype(bool)
    assert [bool(module.rank) for module in trainer.adapters] == kept.tolist()
    layers = np.array([module.info.layer for module in trainer.adapters])
    assert [int(kept[layers == layer].sum()) for layer in (0, 1)] == [3, 3]
    for module in trainer.adapters:
        assert module.scale is not None
        assert (module.scale == 1).all()
    count = trainer.adapters.adapter_parameter_count()
    assert count["budget"] - 100 < count["active"] <= count["budget"]
    assert (recorder.vectors["selection"][0] == 1).all()
    assert np.allclose(recorder.vectors["selection"][4].reshape(2, 6).mean(1), 1, atol=1e-5)
    assert recorder.vectors["logit"][4].std() > 0
    gap = recorder.scalars["discretisation_gap", "train"]
    assert sorted(gap) == list(range(5, 21))
    assert gap[5] == pytest.approx(trainer.strategy.gap[1] - trainer.strategy.gap[0], abs=1e-6)
    assert sorted(recorder.scalars["entropy", "train"]) == [1, 2, 3, 4]
    assert 0.9 < recorder.scalars["entropy", "train"][4] <= 1


def test_flips_count_each_module_that_comes_in_once() -> None:
    strategy, adapters, held_back, _ = planted(20, keep=1 / 3, search_lr=1.0)
    pulls = torch.tensor([0.0, 0.0, -1.0, 0.0, 0.0, 0.0])  # the third module of the first layer overtakes the first
    with torch.no_grad():
        for module, pull in zip(adapters, pulls, strict=True):
            module.lora_B.fill_(1.0)
            module.pull = pull / module.lora_B.numel()
    fake = SimpleNamespace(
        batch=lambda number: {},
        gradients=lambda batch, tensors: (torch.tensor(1.0), [torch.full_like(m.lora_B, m.pull) for m in adapters]),
    )
    strategy.attach_held_back(fake)
    before = strategy.best(strategy.choice, strategy.search["weights"])
    strategy.sought(adapters, 1)
    after = strategy.best(strategy.choice, strategy.search["weights"])
    assert before.tolist() == [True, False, False, True, False, False]
    assert after.tolist() == [False, False, True, True, False, False]
    assert int(strategy.search["flips"]) == 1


def test_from_the_choice_on_it_trains_as_lora_on_the_chosen_modules() -> None:
    fields = {"train__lr": 1e-2, "adapter__dropout": 0.1}
    keeper, recorder = MemoryKeeper(), ListRecorder()
    searched = make_trainer(tiny_config("diffora", **fields), recorder=recorder)
    searched.train(keeper)
    state = keeper.state(5)
    assert len({kept["rank"] for kept in state["adapters"]["modules"].values()}) > 1
    for kept in state["adapters"]["modules"].values():
        assert (kept["scale"] == 1).all()
        kept["scale"] = None
    state["strategy"] = {}
    plain_recorder = ListRecorder()
    plain = make_trainer(tiny_config("lora", **fields), state=state, tokens=searched.tokens, recorder=plain_recorder)
    plain.train(MemoryKeeper())
    losses, expected = (r.scalars["loss", "train"] for r in (recorder, plain_recorder))
    assert sorted(expected) == list(range(6, 21))
    assert [losses[step] for step in expected] == pytest.approx(list(expected.values()), abs=1e-6)


def test_a_search_without_rows_and_limits_that_waste_the_budget_are_refused() -> None:
    with pytest.raises(ConfigError, match="search_share"):
        attach(tiny_model(), strategy="diffora", budget=2, steps=20)
    attach(tiny_model(), strategy="diffora", budget=2, steps=20, search_share=0.0)
    with pytest.raises(ConfigError, match="growth_limit"):
        strategies.build("diffora", {"keep": 0.2, "growth_limit": 2.0}).check(100, 8)
