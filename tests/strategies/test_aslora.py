"""Sharing: one tensor in the model, the optimizer and the checkpoint; merged by distance, exported apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config, tiny_tokens
from dynlora.engine.context import Step
from dynlora.engine.edits import apply, describe
from dynlora.errors import ConfigError
from dynlora.strategies import build
from dynlora.strategies.aslora import (
    Tie,
    closest_groups,
    distance,
    distances,
    groups_of,
    kinds_of,
    merge_jump,
    nearest,
)


def trainer_of(steps: int = 20, **fields):
    """Return a fresh trainer."""
    strategy = {"name": "aslora", **fields}
    return make_trainer(tiny_config("aslora", strategy=strategy, train__lr=1e-2, train__steps=steps))


def pairs(trainer) -> list[list[int]]:
    """Return the modules of each kind: two layers, so two each."""
    return list(kinds_of([module.info for module in trainer.adapters]).values())


def test_one_a_a_kind_and_the_parameters_of_uniform_lora_at_most() -> None:
    trainer = trainer_of()
    for first, second in pairs(trainer):
        assert trainer.adapters[first].lora_A is trainer.adapters[second].lora_A
        module = trainer.adapters[first]
        allowed = 2 * module.info.cost * 2
        assert module.rank * (module.info.d_in + 2 * module.info.d_out) <= allowed
        assert (module.rank + 1) * (module.info.d_in + 2 * module.info.d_out) > allowed, "the rank the budget allows"
    count = trainer.adapters.adapter_parameter_count()
    by_hand = sum(
        trainer.adapters[a].rank * (trainer.adapters[a].info.d_in + 2 * trainer.adapters[a].info.d_out)
        for a, _ in pairs(trainer)
    )
    assert count["active"] == by_hand <= count["budget"]


def test_after_merging_b_counts_once_a_group() -> None:
    trainer = trainer_of(group_share=0.5)
    trainer.train(MemoryKeeper())
    for first, second in pairs(trainer):
        assert trainer.adapters[first].lora_B is trainer.adapters[second].lora_B
    expected = sum(trainer.adapters[a].rank * trainer.adapters[a].info.cost for a, _ in pairs(trainer))
    assert trainer.adapters.adapter_parameter_count()["active"] == expected
    in_optimizer = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in in_optimizer}) == len(in_optimizer) == 2 * len(pairs(trainer)) + 2  # and the head's two


def test_the_shared_gradient_is_the_sum_of_its_users() -> None:
    trainer = trainer_of()
    batch = tiny_tokens().batch(range(8))
    with torch.no_grad():
        for module in trainer.adapters:
            module.lora_B.normal_(generator=torch.Generator().manual_seed(module.info.d_in))
    trainer._loss(dict(batch)).backward()
    first, second = (trainer.adapters[m] for m in pairs(trainer)[0])
    shared = first.lora_A.grad.clone()
    parts = []
    for module in (first, second):
        own = torch.nn.Parameter(first.lora_A.detach().clone())
        kept = module.lora_A
        module.share("lora_A", own)
        trainer.model.zero_grad()
        trainer._loss(dict(batch)).backward()
        parts.append(own.grad.clone())
        module.share("lora_A", kept)
    torch.testing.assert_close(parts[0] + parts[1], shared, rtol=1e-4, atol=1e-7)


def test_merging_equal_tensors_changes_nothing_and_moments_become_those_of_the_sum() -> None:
    trainer = trainer_of(steps=40)
    order, signals = trainer.begin()
    for _ in range(3):
        trainer.take_step(order, signals)
    a, b = pairs(trainer)[0]
    first, second = trainer.adapters[a], trainer.adapters[b]
    with torch.no_grad():
        second.lora_B.copy_(first.lora_B)
    states = [trainer.optimizer.state[m.lora_B] for m in (first, second)]
    (one, other), (one_sq, other_sq) = ([s[name].clone() for s in states] for name in ("exp_avg", "exp_avg_sq"))
    before = trainer.predictions(trainer.tokens).loss
    apply(trainer.adapters, [Tie((a, b))], trainer.optimizer, step=3)
    assert abs(trainer.predictions(trainer.tokens).loss - before).max() < 1e-6
    kept = trainer.optimizer.state[first.lora_B]
    torch.testing.assert_close(kept["exp_avg"], one + other)
    torch.testing.assert_close(kept["exp_avg_sq"], (one_sq.sqrt() + other_sq.sqrt()).square())
    assert second.lora_B is first.lora_B
    assert len([p for group in trainer.optimizer.param_groups for p in group["params"]]) == len(
        {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    )


def test_no_step_after_a_merge_is_larger_than_the_rate() -> None:
    """The gradient of what three layers share is the sum of theirs; moments of one alone would triple the steps."""
    trainer = make_trainer(tiny_config("lora"))
    modules = [trainer.adapters[index] for index in (0, 1, 2)]
    lr = 1e-2
    optimizer = torch.optim.AdamW([m.lora_B for m in modules], lr=lr, weight_decay=0.0)
    gradient = torch.randn(modules[0].lora_B.shape, generator=torch.Generator().manual_seed(0))
    for step in range(60):
        if step == 30:
            apply(trainer.adapters, [Tie((0, 1)), Tie((0, 2))], optimizer, step=step)
        merged = step >= 30
        for module in modules[:1] if merged else modules:
            module.lora_B.grad = 3 * gradient if merged else gradient.clone()
        before = modules[0].lora_B.detach().clone()
        optimizer.step()
        assert (modules[0].lora_B.detach() - before).abs().max() <= 1.01 * lr, step


def test_the_jump_of_a_merge_is_what_the_loss_does_to_first_order() -> None:
    trainer = trainer_of()
    batch = tiny_tokens().batch(range(32))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in trainer.adapters:
            module.lora_B.copy_(2e-2 * torch.randn(module.lora_B.shape, generator=draw))
    loss = trainer._loss(dict(batch))
    loss.backward()
    merges = pairs(trainer)
    expected = float(merge_jump(trainer.adapters, merges))
    apply(trainer.adapters, [Tie(tuple(merge)) for merge in merges], trainer.optimizer, step=1)
    with torch.no_grad():
        assert float(trainer._loss(dict(batch)) - loss) == pytest.approx(expected, rel=0.1)


def test_a_group_of_two_weighs_twice() -> None:
    trainer = make_trainer(tiny_config("lora"))
    for value, index in enumerate((0, 1, 2)):
        with torch.no_grad():
            trainer.adapters[index].lora_B.fill_(float(value))
    apply(trainer.adapters, [Tie((0, 1))], trainer.optimizer, step=1)
    apply(trainer.adapters, [Tie((0, 2))], trainer.optimizer, step=2)
    assert torch.allclose(trainer.adapters[2].lora_B, torch.tensor((2 * 0.5 + 2.0) / 3))
    assert list(groups_of(trainer.adapters)[:4]) == [0, 0, 0, 3]
    away = nearest(trainer.adapters, [0, 1, 2, 3])
    assert away[0] == away[1] == away[2] == away[3] == pytest.approx(1.0)  # the last is still zero
    assert math.isnan(nearest(trainer.adapters, [0, 1, 2])[0])


def test_the_nearest_pair_merges_first() -> None:
    trainer = make_trainer(tiny_config("lora"))
    for index, value in ((0, 1.0), (1, 5.0), (2, 1.1)):
        with torch.no_grad():
            trainer.adapters[index].lora_B.fill_(value)
    ((merged, gap),) = closest_groups(trainer.adapters, [0, 1, 2], 2)
    assert merged == [0, 2]
    assert gap == pytest.approx(0.1 / 2.1, rel=1e-5)
    assert distance(torch.ones(3), -torch.ones(3)) == pytest.approx(1.0)
    assert [pair for pair, _ in closest_groups(trainer.adapters, [0, 1, 2], 1)] == [[0, 2], [0, 1]]


def test_merges_are_in_the_decision_log_with_their_distance() -> None:
    recorder = ListRecorder()
    config = tiny_config("aslora", train__lr=1e-2)
    trainer = make_trainer(config, recorder=recorder)
    trainer.train(MemoryKeeper())
    rows = [row for _, _, _, payload in recorder.events if "edits" in payload for row in payload["edits"]]
    assert len(rows) == len(pairs(trainer))
    assert all(row["edit"] == "tie" and 0 <= row["distance"] <= 1 for row in rows)
    assert recorder.scalars["groups", "train"][20] == len(pairs(trainer))
    merged = recorder.scalars["merge_distance", "train"]
    assert (
        set(merged)
        == set(recorder.scalars["merge_jump", "train"])
        == {step for step, kind, _, _ in recorder.events if kind == "reallocate"}
    )
    assert max(merged.values()) == pytest.approx(max(row["distance"] for row in rows), rel=1e-5)
    first = min(trainer.strategy.events(20, 2))
    assert min(recorder.vectors["distance"]) == first


def test_a_merge_tells_all_distances_it_was_chosen_from() -> None:
    trainer = trainer_of(steps=40)
    kinds = pairs(trainer)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in trainer.adapters:
            module.lora_B.copy_(torch.randn(module.lora_B.shape, generator=draw))
    three = [kinds[0][0], kinds[0][1], kinds[1][0]]  # three of one shape, as if of one kind
    table = distances(trainer.adapters, three)
    B = [trainer.adapters[index].lora_B.detach() for index in three]
    by_hand = [[float((a - b).norm() / (a.norm() + b.norm())) for b in B] for a in B]
    assert [list(row) for row in table] == pytest.approx(np.round(by_hand, 4), abs=1e-4)
    gap = min(table[i][j] for i in range(3) for j in range(i))
    assert closest_groups(trainer.adapters, three, 2)[0][1] == pytest.approx(gap, abs=1e-4)
    last = max(trainer.strategy.events(40, 2))
    rows = describe(trainer.strategy.allocate(trainer.adapters, Step(last, 40, 1e-2)))
    assert [row["among"] for row in rows] == kinds, "each kind once an event"
    for row in rows:
        ((zero, away), _) = row["distances"]
        assert (zero, away) == (0, pytest.approx(row["distance"], abs=1e-4))
        assert row["distances"] == np.transpose(row["distances"]).tolist()


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"strategy.group_share=0.5: tensors cannot be merged over several"):
        build("aslora", {}).check(100, 8)
    build("aslora", {"group_share": 1.0}).check(100, 8)
