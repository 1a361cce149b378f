"""AdaLoRA: the cubic budget by hand, as many triplets pruned as asked for, and masks that decide nothing anew."""

from __future__ import annotations

import pytest
import torch

from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config
from dynlora.engine import edits
from dynlora.engine.context import Step
from dynlora.engine.edits.components import MaskScales
from dynlora.engine.loop.schedule import Phases
from dynlora.errors import ConfigError
from dynlora.strategies import build


def adalora(**fields: object) -> dict[str, object]:
    """Return the strategy's settings."""
    return {"name": "adalora", **fields}


def test_the_budget_falls_as_a_cube() -> None:
    strategy, phases = build("adalora", {}), Phases.of(100, warmup_steps=20, final_steps=30, allocate_every=5)
    # from 24 to 16 triplets between the steps 20 and 70: 16 + 8 (1 - (t - 20) / 50)³
    by_hand = {1: 24, 20: 24, 25: 21, 30: 20, 45: 17, 60: 16, 70: 16, 71: 16, 100: 16}
    assert {step: strategy.budget(step, phases, 24, 16) for step in by_hand} == by_hand


def test_equal_scores_prune_exactly_as_many_as_asked_for() -> None:
    trainer = make_trainer(tiny_config("adalora", strategy=adalora(init_r=4), train__steps=100))
    strategy, adapters = trainer.strategy, trainer.adapters
    for module in adapters:
        for name, tensor in module.adapter_parameters().items():
            for averages in (strategy.sensitivity, strategy.uncertainty):
                averages[f"{module.info.name}.{name}"] = torch.ones_like(tensor)
    phases = strategy.phases(100)
    strategy._prune(adapters, phases, 100 - phases.final_steps)
    assert sum(map(sum, strategy.pattern)) == 2 * len(adapters)


def test_a_start_at_the_target_prunes_nothing() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("adalora", strategy=adalora(init_r=2), train__lr=1e-2), recorder=recorder)
    trainer.train(MemoryKeeper())
    assert {module.rank for module in trainer.adapters} == {2}
    assert not [step for step, kind, _, _ in recorder.events if kind == "reallocate"]


def pruned_to(architecture: str, rank: int) -> tuple[list[int], list[int], dict[int, float]]:
    """Return the ranks a run starts and ends with, and the budget it records at each step."""
    recorder = ListRecorder()
    config = tiny_config("adalora", adapter__rank=rank, train__lr=1e-2)
    trainer = make_trainer(config, architecture, recorder=recorder)
    start = [module.rank for module in trainer.adapters]
    trainer.train(MemoryKeeper())
    return start, [module.rank for module in trainer.adapters], recorder.scalars["budget", "train"]


def test_a_rank_above_every_dimension_prunes_nothing() -> None:
    start, end, budget = pruned_to("bert", rank=40)
    assert start == end == [32] * len(start)
    assert set(budget.values()) == {sum(start)}


@pytest.mark.parametrize(("rank", "left"), [(16, 16 * 14), (30, 32 * 10 + 16 * 4)])
def test_narrow_modules_start_with_fewer_and_the_budget_holds(rank: int, left: int) -> None:
    start, end, budget = pruned_to("llama", rank)
    assert min(start) == 16 < max(start)  # keys and values are half as wide as the rest
    assert sum(end) == budget[20] == left
    assert list(budget.values()) == sorted(budget.values(), reverse=True)


def test_masks_hold_to_the_end_and_are_logged_at_events_alone() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("adalora", strategy=adalora(init_r=4), train__lr=1e-2), recorder=recorder)
    seen = {}
    trainer.on_step = lambda t: seen.setdefault(t.step, [m.scale.detach().clone() for m in t.adapters])
    trainer.train(MemoryKeeper())
    last = max(trainer.strategy.events(20, 2))
    budget = recorder.scalars["budget", "train"]
    assert budget[20] == budget[last] == 2 * len(trainer.adapters)
    assert list(budget.values()) == sorted(budget.values(), reverse=True)
    assert recorder.scalars["threshold", "train"][last] > 0
    for step in range(last, 20):
        zeros = torch.cat([scale == 0 for scale in seen[step]])
        assert int((~zeros).sum()) == 2 * len(trainer.adapters)
        assert torch.equal(zeros, torch.cat([scale == 0 for scale in seen[last]]))


def test_a_repeated_mask_is_no_decision() -> None:
    trainer = make_trainer(tiny_config("adalora", strategy=adalora(init_r=3)))
    with torch.no_grad():
        for module in trainer.adapters:
            module.scale.fill_(2.0)
    keep = torch.ones(3 * len(trainer.adapters))
    keep[1] = 0
    edit = MaskScales(keep)
    edits.apply(trainer.adapters, [edit], None, step=1)
    assert trainer.adapters[0].scale.tolist() == [2.0, 0.0, 2.0]
    assert trainer.adapters[1].scale.tolist() == [2.0] * 3
    assert edits.describe([edit]) == []


def test_masks_are_held_after_a_resume_in_the_last_phase() -> None:
    config, keeper = tiny_config("adalora", strategy=adalora(init_r=4), train__lr=1e-2), MemoryKeeper()
    make_trainer(config).train(keeper)
    resumed = make_trainer(config, state=keeper.state(15))
    (edit,) = resumed.strategy.allocate(resumed.adapters, Step(16, 20, 1e-3))
    assert isinstance(edit, MaskScales)
    assert int(edit.keep.sum()) == 2 * len(resumed.adapters)


def test_the_scaling_may_be_rank_stabilised() -> None:
    trainer = make_trainer(tiny_config("adalora", strategy=adalora(init_r=4, scaling="rank_stabilized")))
    assert trainer.adapters[0].scaling == pytest.approx(4 / (4 + 1e-5) ** 0.5)


def test_a_start_below_the_target_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy.init_r=2: must be at least adapter.rank=4; raise it"):
        build("adalora", {"init_r": 2}).check(100, 4)
