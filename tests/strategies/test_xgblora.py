"""Boosters: folded without a jump, kept as a list that is the sum, and gone again when the adapters are off."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import dynlora
from dynlora.contracts.harness import (
    ListRecorder,
    MemoryKeeper,
    make_trainer,
    same,
    tiny_config,
    tiny_model,
    tiny_tokens,
)
from dynlora.engine.edits import apply
from dynlora.engine.model.modules import ModuleInfo
from dynlora.errors import ConfigError
from dynlora.strategies import build
from dynlora.strategies.xgblora import NextBooster


@functools.cache
def trained(**fields):
    """Return a trainer of four rounds, trained to its end, and what it recorded; who changes it takes `make`'s."""
    return make(**fields)


def make(**fields):
    """Return one of one's own."""
    recorder = ListRecorder()
    config = tiny_config("xgblora", strategy={"name": "xgblora", **fields}, train__lr=1e-2)
    trainer = make_trainer(config, recorder=recorder)
    trainer.train(MemoryKeeper())
    return trainer, recorder


def logits(model) -> torch.Tensor:
    """Return what a model says of a few rows."""
    with torch.no_grad():
        return model.eval()(**tiny_tokens().batch(range(6))).logits


def test_a_fold_leaves_the_function_as_it_is() -> None:
    trainer, _ = make()
    before = logits(trainer.model)
    apply(trainer.adapters, [NextBooster((0, 3))], trainer.optimizer, step=99)
    torch.testing.assert_close(logits(trainer.model), before, rtol=0, atol=1e-5)
    assert [module.rank for module in trainer.adapters][:4] == [1, 0, 0, 1]
    assert trainer.adapters[0].lora_A not in trainer.optimizer.state, "moments of a new booster begin anew"


def test_the_boosters_are_what_the_weights_gained() -> None:
    trainer, _ = trained()
    fresh = dict(tiny_model().named_modules())
    for module in trainer.adapters:
        gained = module.base_layer.weight + module.delta_weight() - fresh[module.info.name].weight
        A, B = module.low_rank()
        torch.testing.assert_close(gained, module.scaling * B @ A, rtol=0, atol=1e-6)
        assert torch.linalg.matrix_rank(gained.detach(), atol=1e-7) <= len(A) == module.active_rank()


def test_without_adapters_it_is_the_base_model_again() -> None:
    trainer, _ = trained()
    base = tiny_model()
    base.classifier.load_state_dict(trainer.model.classifier.state_dict())
    with trainer.adapters.disabled():
        off = logits(trainer.model)
    torch.testing.assert_close(off, logits(base), rtol=0, atol=1e-4)


def test_one_booster_on_all_layers_is_rank_one_lora() -> None:
    whole = {"name": "xgblora", "rounds": 1, "layer_share": 1.0, "norm_penalty": 0.0}
    runs = [
        make_trainer(tiny_config(s["name"], strategy=s, adapter__rank=1, train__lr=1e-2))
        for s in ({"name": "lora"}, whole)
    ]
    for trainer in runs:
        trainer.train(MemoryKeeper())
    for side in ("lora_A", "lora_B"):
        assert same(*({m.info.name: getattr(m, side).detach() for m in trainer.adapters} for trainer in runs))


def test_a_round_trains_its_layers_and_nothing_else() -> None:
    config = tiny_config("xgblora", train__lr=1e-2)
    trainer = make_trainer(config)
    strategy, infos = trainer.strategy, [module.info for module in trainer.adapters]
    rounds = strategy.chosen(infos, trainer.adapters.budget, 0, 2)
    assert len(rounds) == 4
    assert sum(infos[m].cost for members in rounds for m in members) <= trainer.adapters.budget
    seen = {}
    trainer.on_step = lambda t: seen.setdefault(t.step, [module.rank for module in t.adapters])
    trainer.train(MemoryKeeper())
    ends = strategy.ends(20, 2)
    for step, ranks in seen.items():
        number = next(i for i, end in enumerate(ends) if step < end or end == 20)
        assert [m for m, rank in enumerate(ranks) if rank] == list(rounds[number]), step
    for members in rounds:
        layers = {infos[m].layer for m in members}
        assert len(layers) == 1, "half of two layers"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0.25, 0.5, 0.75, 1.0]), st.integers(1, 7), st.integers(1, 6), st.integers(0, 99))
def test_no_round_trains_nothing_and_the_budget_is_spent(share: float, layers: int, rank: int, seed: int) -> None:
    infos = [ModuleInfo(f"{layer}{kind}", layer, kind, 8, 8) for layer in range(layers) for kind in "qv"]
    budget = rank * sum(info.cost for info in infos)
    strategy = build("xgblora", {"layer_share": share})
    rounds = strategy.chosen(infos, budget, seed, rank)
    assert all(rounds)
    assert len(rounds) <= strategy.room(rank)
    spent = sum(infos[m].cost for members in rounds for m in members)
    round_cost = sum(infos[m].cost for m in rounds[0])
    assert budget - round_cost < spent <= budget


def test_all_layers_at_once_take_as_many_rounds_as_the_rank() -> None:
    trainer, recorder = trained(layer_share=1.0)
    assert [step for step, kind, _, _ in recorder.events if kind == "reallocate"] == [10]
    assert all(module.rank for module in trainer.adapters), "the last round trains too"


def test_the_cosine_of_boosters_is_that_of_their_matrices() -> None:
    trainer, _ = trained()
    module = next(m for m in trainer.adapters if m.count and m.rank)
    last = torch.outer(module.boosters_B[:, module.count - 1], module.boosters_A[module.count - 1])
    now = module.lora_B @ module.lora_A
    expected = torch.cosine_similarity(last.flatten(), now.flatten(), dim=0)
    torch.testing.assert_close(module.likeness(), expected, rtol=1e-4, atol=1e-6)


def test_more_rounds_than_the_budget_pays_for_are_refused() -> None:
    config = tiny_config("xgblora", strategy={"name": "xgblora", "rounds": 5, "layer_share": 0.5}, train__steps=40)
    with pytest.raises(ConfigError, match=r"strategy.rounds=5: rank 2 pays for 4 rounds .* lower it to 4"):
        make_trainer(config)


def test_a_step_trains_the_components_of_its_round_and_resting_modules_stay_zero() -> None:
    trainer = make_trainer(tiny_config("xgblora", train__lr=1e-2))
    order, signals = trainer.begin()
    for _ in range(3):
        trainer.take_step(order, signals)
    cost = sum(module.info.cost for module in trainer.adapters if module.rank)
    live = [m for m in trainer.adapters if m.lora_A.any() or m.lora_B.any()]
    assert [m.info.name for m in live] == [m.info.name for m in trainer.adapters if m.rank]
    assert sum(int((m.lora_A != 0).sum() + (m.lora_B != 0).sum()) for m in trainer.adapters) == cost


def test_the_log_replays_the_run() -> None:
    trainer, recorder = trained()
    begun = [row["modules"] for _, _, _, payload in recorder.events if "edits" in payload for row in payload["edits"]]
    infos = [module.info for module in trainer.adapters]
    assert begun == [list(m) for m in trainer.strategy.chosen(infos, trainer.adapters.budget, 0, 2)[1:]]
    losses, booster_losses = recorder.scalars["loss", "train"], recorder.scalars["booster_loss", "train"]
    assert booster_losses[10] == pytest.approx(np.mean([losses[step] for step in range(6, 11)]), rel=1e-5)


def test_a_round_is_counted_measured_and_compared_with_those_before() -> None:
    trainer, recorder = trained()
    assert recorder.scalars["round", "train"] == {step: (step + 4) // 5 for step in range(1, 21)}
    norms, cosines = recorder.scalars["booster_norm", "train"], recorder.scalars["booster_cosine", "train"]
    assert list(norms) == [5, 10, 15, 20]
    live = [m for m in trainer.adapters if m.rank]
    by_hand = np.mean([float((m.scaling * m.lora_B @ m.lora_A).detach().norm()) for m in live])
    assert norms[20] == pytest.approx(by_hand, rel=1e-5)
    infos, seen = [module.info for module in trainer.adapters], set()
    for step, members in zip(norms, trainer.strategy.chosen(infos, trainer.adapters.budget, 0, 2), strict=True):
        assert (step in cosines) == bool(seen & set(members)), "the first boosters are like none before"
        seen |= set(members)


def narrow(dtype: torch.dtype = torch.bfloat16, layers: int = 2) -> nn.Module:
    """Return linear modules of half precision, one after the other."""
    torch.manual_seed(0)
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Linear(24, 16) for _ in range(layers))
    return model.to(dtype)


def boosted(module, n: int, size: float) -> torch.Tensor:
    """Fold n boosters of about this size into a module, and return their sum."""
    before = module.count
    with torch.no_grad():
        for index in range(n):
            draw = torch.Generator().manual_seed(index)
            module.lora_A.copy_(torch.randn(1, 24, generator=draw))
            module.lora_B.copy_(size * torch.randn(16, 1, generator=draw).abs())
            module.rank = 1
            module.fold()
    A, B = module.low_rank()
    return (module.scaling * B[:, before:] @ A[before:]).detach()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_boosters_far_below_the_rounding_add_up_in_half_precision(dtype: torch.dtype) -> None:
    attached = dynlora.attach(narrow(dtype), strategy="xgblora", budget=128, steps=2000)
    module = attached.adapters[0]
    base = narrow(dtype).layers[0].weight.detach().double()
    total = boosted(module, 100, size=torch.finfo(dtype).eps / 256)
    exact = base + total.double()
    gap, half = (module.base_layer.weight - exact).abs(), torch.finfo(dtype).eps / 2
    assert (gap <= half * exact.abs() + 1e-6).all(), "the rounding of one addition"
    assert module.base_layer.weight.dtype == dtype
    assert float(((module.base_layer.weight - base) * total).sum()) > 0.9 * float(total.square().sum())


def test_a_merge_leaves_the_output_but_for_one_rounding_in_half_precision() -> None:
    attached = dynlora.attach(narrow(), strategy="xgblora", budget=4, steps=40, layer_share=1.0)
    module = attached.adapters[0]
    x = torch.randn(8, 24, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with torch.no_grad():
        plain = module(x)
        for size in (1e-1, 1e-2, 1e-4):
            module.lora_A.copy_(torch.ones(1, 24))
            module.lora_B.copy_(size * torch.ones(16, 1))
            module.rank = 1
            before = module(x)
            module.fold()
            rounding = 2**-8 * (x.abs().double() @ module.base_layer.weight.abs().double().t() + 2 * before.abs())
            assert ((module(x) - before).abs() <= rounding).all(), size
        module.enabled = False
        assert ((module(x) - plain).abs() <= rounding).all(), "taken out again"


def test_boosters_in_half_precision_come_back_to_the_bit() -> None:
    first, second = (dynlora.attach(narrow(), strategy="xgblora", budget=16, steps=200) for _ in range(2))
    module, other = first.adapters[0], second.adapters[0]
    boosted(module, 10, size=1e-3)
    for name, tensor in module.own_tensors().items():
        getattr(other, name).copy_(tensor)
    other.loaded()
    assert torch.equal(other.base_layer.weight, module.base_layer.weight)
    boosted(other, 1, size=1e-4)
    boosted(module, 1, size=1e-4)
    assert torch.equal(other.base_layer.weight, module.base_layer.weight), "the exact sum came back too"


@pytest.mark.parametrize("name", ["xgblora", "glora"])
@pytest.mark.parametrize("packed", ["whole numbers", "two in one", "eight bits"])
def test_weights_that_are_no_plain_numbers_are_refused(name: str, packed: str) -> None:
    model = narrow(torch.float32)
    weight = model.layers[1].weight.detach()
    weight = {
        "whole numbers": weight.to(torch.int8),
        "two in one": weight.flatten()[::2].contiguous(),
        "eight bits": weight.to(torch.float8_e4m3fn),
    }[packed]
    model.layers[1].weight = nn.Parameter(weight, requires_grad=False)
    fields = {"path": "nlnnn"} if name == "glora" else {}
    with pytest.raises(ConfigError, match=rf"strategy.name={name}: .* weight of layers.1 has .* without quantisa"):
        dynlora.attach(model, strategy=name, budget=2, steps=20, **fields)


def test_rounds_too_short_to_learn_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy.rounds=8: each takes at least 4 steps .* lower it to 5"):
        build("xgblora", {"rounds": 8}).check(20, 8)
