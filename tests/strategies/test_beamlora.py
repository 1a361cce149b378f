"""BeamLoRA: shares of one sum, top-p over all modules, slots that become what the source was, jumps that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import dynlora
from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config
from dynlora.engine import edits
from dynlora.engine.context import Step
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo
from dynlora.errors import ConfigError
from dynlora.strategies import build
from dynlora.strategies.beamlora import BeamLinear, CopyComponent, TakeSnapshot, factors_of, jump, pairing, pruned

SCORES = st.lists(st.floats(-0.3, 0.3), min_size=2, max_size=8)


def beam(seed: int = 0, rank: int = 4) -> BeamLinear:
    """Return a module with random components and scores, three optimizer steps old in nothing."""
    generator = torch.Generator().manual_seed(seed)
    module = BeamLinear(
        nn.Linear(6, 5),
        ModuleInfo(f"block.{seed}.linear", seed, "linear", 6, 5),
        rank=rank,
        scaling=0.5,
        temperature=0.05,
    )
    module.reset_parameters(seed)
    with torch.no_grad():
        module.lora_B.normal_(generator=generator)
        module.score.normal_(0, 0.05, generator=generator)
    return module


def collection(*modules: BeamLinear) -> Adapters:
    """Return modules as adapters."""
    return Adapters(modules, budget=10_000, reference_rank=4, seed=0)


def trained(adapters: Adapters, steps: int = 3) -> torch.optim.AdamW:
    """Take optimizer steps, so that there are moments."""
    parameters = [tensor for module in adapters for tensor in module.adapter_parameters().values()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    step_on(adapters, optimizer, steps)
    return optimizer


def step_on(adapters: Adapters, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Take more of them."""
    generator = torch.Generator().manual_seed(steps)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(m(torch.randn(8, 6, generator=generator)).pow(2).mean() for m in adapters).backward()
        optimizer.step()


@given(SCORES)
def test_factors_share_the_rank_and_follow_a_permutation(scores: list[float]) -> None:
    score = torch.tensor(scores)
    factors = factors_of(score, 0.05)
    assert float(factors.sum()) == pytest.approx(len(scores), rel=1e-5)
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(factors_of(score[order], 0.05), factors[order], atol=1e-6)


def test_factors_by_hand() -> None:
    score = 0.05 * torch.log(torch.tensor([3.0, 1.0]))
    assert torch.allclose(factors_of(score, 0.05), torch.tensor([1.5, 0.5]))
    assert torch.equal(factors_of(torch.zeros(8), 0.05), torch.ones(8))


def test_top_p_by_hand() -> None:
    factors = [torch.tensor([1.5, 0.5]), torch.tensor([1.2, 0.8])]
    assert pruned(factors, 0.95) == [[1], []]  # 1.5 + 1.2 + 0.8 = 3.5 of 3.8
    assert pruned(factors, 0.80) == [[1], [1]]  # 2.7 of 3.2
    assert pruned(factors, 0.30) == [[1, 0], [1, 0]]  # 1.5 exceeds 1.2


@given(st.lists(SCORES, min_size=1, max_size=5))
def test_with_p_one_nothing_is_pruned(scores: list[list[float]]) -> None:
    factors = [factors_of(torch.tensor(score), 0.05) for score in scores]
    assert not any(pruned(factors, 1.0))


@given(SCORES, st.integers(0, 8), st.integers(0, 99))
def test_the_strongest_go_into_the_slots_of_the_weakest(scores: list[float], count: int, seed: int) -> None:
    factors = factors_of(torch.tensor(scores), 0.05)
    going = torch.argsort(factors, stable=True).tolist()[:count]
    pairs = pairing(factors, going, torch.Generator().manual_seed(seed))
    sources, targets = {s for s, _ in pairs}, {t for _, t in pairs}
    assert len(sources) == len(targets) == len(pairs) == min(len(going), len(factors) - len(going))
    assert not sources & set(going)
    assert targets <= set(going)
    if pairs:
        assert min(factors[list(sources)]) >= sorted(factors.tolist())[-len(pairs)]


def test_p_and_events_by_hand() -> None:
    fading = build("beamlora", {"moving_share": 0.5})
    assert [fading.keep(step, 100) for step in (0, 25, 50, 90)] == pytest.approx([0.95, 0.975, 1, 1])
    rising = build("beamlora", {"moving_share": 0.5, "direction": "rising"})
    assert [rising.keep(step, 100) for step in (0, 25, 50, 90)] == pytest.approx([1, 0.975, 0.95, 0.95])
    assert build("beamlora", {}).events(100, 8) == [8, 16, 24, 32, 40, 48, 56, 64]
    assert build("beamlora", {"direction": "rising", "allocate_every": 30}).events(100, 8) == [30, 60]
    assert build("beamlora", {}).events(100, 1) == build("beamlora", {"top_p": 1.0}).events(100, 8) == []
    for total in range(20, 300, 7):
        assert len(build("beamlora", {}).events(total, 2)) >= 3
    with pytest.raises(ConfigError, match="an interval must be left"):
        build("beamlora", {"allocate_every": 60}).check(100, 8)


def test_a_slot_becomes_what_its_source_was_moments_and_all() -> None:
    module = beam()
    adapters = collection(module)
    optimizer = trained(adapters)
    past: list[dict[str, torch.Tensor]] = []
    TakeSnapshot(past).perform(adapters, optimizer, 3)
    then = {name: tensor.clone() for name, tensor in past[0].items()}
    step_on(adapters, optimizer, 4)
    now = {name: getattr(module, name).detach().clone() for name in ("lora_A", "lora_B", "score")}
    moments = optimizer.state[module.lora_A]["exp_avg"].clone()
    assert not torch.equal(now["lora_A"], then["lora_A"])
    CopyComponent(0, 2, 1, 1.0, 1.0, past[0]).perform(adapters, optimizer, 7)
    assert torch.equal(module.lora_A[1], then["lora_A"][2])
    assert torch.equal(module.lora_B[:, 1], then["lora_B"][:, 2])
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(optimizer.state[module.lora_A][key][1], then[f"lora_A.{key}"][2])
        assert torch.equal(optimizer.state[module.lora_B][key][:, 1], then[f"lora_B.{key}"][:, 2])
        assert not optimizer.state[module.score][key][[1, 2]].any()
        assert optimizer.state[module.score][key][[0, 3]].all()
    assert module.score[1] == module.score[2] == (now["score"][1] + now["score"][2]) / 2
    others = [0, 2, 3]
    assert torch.equal(module.lora_A[others], now["lora_A"][others])
    assert torch.equal(module.lora_B[:, others], now["lora_B"][:, others])
    assert torch.equal(optimizer.state[module.lora_A]["exp_avg"][others], moments[others])


def test_a_split_loses_the_pruned_component_and_nothing_else() -> None:
    module = beam()
    adapters = collection(module)
    optimizer = trained(adapters)
    past: list[dict[str, torch.Tensor]] = []
    TakeSnapshot(past).perform(adapters, optimizer, 3)
    factors = module.factors(4).detach().clone()
    lost = 0.5 * factors[1] * torch.outer(module.lora_B[:, 1], module.lora_A[1])
    wanted = (module.delta_weight() - lost).detach()
    CopyComponent(0, 2, 1, 1.0, 1.0, past[0], split=True).perform(adapters, optimizer, 7)
    after = module.factors(4).detach()
    assert torch.allclose(module.delta_weight(), wanted, atol=1e-6)
    assert torch.allclose(after[[0, 3]], factors[[0, 3]], atol=1e-6)
    assert torch.allclose(after[[1, 2]], (factors[1] + factors[2]).expand(2) / 2, atol=1e-6)
    x = torch.randn(3, 6)
    assert torch.allclose(module(x), module.base_layer(x) + x @ wanted.t(), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.sampled_from([[(3, 0)], [(3, 0), (2, 1)], []]))
def test_the_jump_is_known_before_and_between_zero_and_one(
    seed: int, split: bool, pairs: list[tuple[int, int]]
) -> None:
    adapters = collection(beam(seed), beam(seed + 1))
    modules = list(adapters)
    past: list[dict[str, torch.Tensor]] = []
    TakeSnapshot(past).perform(adapters, None, 1)
    with torch.no_grad():
        for module in modules:
            module.lora_A.add_(0.3 * torch.randn_like(module.lora_A))
    before = torch.stack([module.delta_weight().detach() for module in modules])
    loss_jump = float(jump(modules, {1: pairs}, None if split else past))
    for source, target in pairs:
        CopyComponent(1, source, target, 1.0, 1.0, past[1], split).perform(adapters, None, 1)
    after = torch.stack([module.delta_weight().detach() for module in modules])
    assert loss_jump == pytest.approx(float((after - before).norm() / (after.norm() + before.norm())), abs=1e-6)
    assert 0 <= loss_jump <= 1
    assert (loss_jump > 1e-6) == bool(pairs)


@pytest.mark.parametrize("copy", ["published", "halved"])
def test_a_run_copies_logs_the_lineage_and_keeps_its_rank(copy: str) -> None:
    recorder = ListRecorder()
    config = tiny_config("beamlora", strategy={"name": "beamlora", "copy": copy}, adapter__rank=4, train__lr=1e-2)
    trainer = make_trainer(config, recorder=recorder)
    kept: dict[int, bool] = {}
    trainer.on_step = lambda t: kept.update({t.step: bool(t.strategy.past)})
    trainer.train(MemoryKeeper())
    assert all((vector == 4).all() for vector in recorder.vectors["rank"].values())
    planned = trainer.strategy.events(20, 4)
    events = {step: payload["edits"] for step, kind, _, payload in recorder.events if kind == "reallocate"}
    assert len(events) >= 3
    rows = [row for made in events.values() for row in made]
    for row in rows:
        assert row["edit"] == "copy"
        assert row["donor"] == row["receiver"]
        assert row["donor_component"] != row["receiver_component"]
        assert row["donor_score"] >= row["receiver_score"]
    counted = np.bincount([row["receiver"] for row in rows], minlength=12)
    np.testing.assert_array_equal(recorder.vectors["copied"][20], counted)
    jumps = recorder.scalars["jump", "train"]
    assert set(jumps) == set(planned)
    assert all(0 < jumps[step] < 1 for step in events)
    assert [step for step, held in kept.items() if held] == [step - 1 for step in planned]


@pytest.mark.parametrize("copy", ["published", "halved"])
def test_the_recorded_jump_is_what_the_event_does(copy: str) -> None:
    torch.manual_seed(0)
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Linear(6, 5) for _ in range(3))
    attached = dynlora.attach(model, strategy="beamlora", budget=4, steps=50, lr=2e-2, copy=copy)
    adapters, strategy = attached.adapters, attached.strategy
    event = strategy.events(50, 4)[1]
    for index in range(1, event + 1):
        x = torch.randn(8, 6)
        sum((module(x) - x[:, :5].roll(m, 1)).pow(2).mean() for m, module in enumerate(adapters)).backward()
        if index < event:
            attached.step()
    attached.optimizer.step()
    with torch.no_grad():
        before = torch.stack([module.delta_weight() for module in adapters])
        made = strategy.allocate(adapters, Step(event, 50, 2e-2))
        edits.apply(adapters, made, attached.optimizer, step=event)
        after = torch.stack([module.delta_weight() for module in adapters])
    assert made
    moved = float((after - before).norm() / (after.norm() + before.norm()))
    assert strategy.scalars(adapters)["jump"] == pytest.approx(moved, abs=1e-6)
    assert moved > 1e-4
