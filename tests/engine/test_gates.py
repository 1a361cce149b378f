"""Input gates: one at the start, one product a forward, fixed features, bakeable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dynlora.contracts.harness import TASK, ListRecorder, MemoryKeeper, make_trainer, tiny_config, tiny_tokens
from dynlora.engine.edits import Drop, Grow, apply
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates
from dynlora.engine.evaluation.module_effects import reaction
from dynlora.engine.model.gates import FEATURES, principal_directions

GATED = {"name": "dynamic", "gates": "module"}


def inputs(rows):
    """Return rows of the tiny tokens as a batch without labels, which no padding fits."""
    return {name: tensor for name, tensor in tiny_tokens().batch(rows).items() if name != "labels"}


def gated():
    """Return a trainer with gates, trained a little."""
    trainer = make_trainer(tiny_config("dynamic", strategy=GATED, train__lr=1e-2))
    trainer.train(MemoryKeeper())
    return trainer


def adapted(trainer) -> AdaptedModel:
    """Return a trainer's model as it is used after training."""
    base = type("Base", (), {"model": trainer.model})()
    return AdaptedModel(base, trainer.adapters, trainer.strategy, TASK, 16, trainer.autocast)


def test_calibration_runs_no_block_and_leaves_the_model_as_it_was() -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy=GATED))
    gates, batch = trainer.adapters.gates, inputs(range(16))
    trainer.model.eval()
    with torch.no_grad():
        before = trainer.model(**batch).logits
    runs: list[int] = []
    handle = trainer.adapters[0].register_forward_hook(lambda *_: runs.append(1))
    mean, deviation = gates.mean.clone(), gates.deviation.clone()
    gates.mean.zero_()
    gates.deviation.fill_(1)
    gates.calibrate(trainer.model, [batch])
    assert runs == []
    handle.remove()
    assert torch.equal(gates.mean, mean)
    assert torch.equal(gates.deviation, deviation)
    with torch.no_grad():
        assert torch.equal(trainer.model(**batch).logits, before)


@pytest.mark.parametrize("mode", ["module", "token"])
def test_features_are_the_leading_principal_components_of_the_calibration_inputs(mode: str) -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy={"name": "dynamic", "gates": mode}))
    gates, batch = trainer.adapters.gates, inputs(range(16))
    seen: list[torch.Tensor] = []
    gates.register_forward_hook(lambda _module, _args, output: seen.append(output))
    trainer.model.eval()
    with torch.no_grad():
        trainer.model(**batch)
    features = seen[0] if mode == "module" else seen[0][batch["attention_mask"].bool()]
    covariance = torch.cov(features.T, correction=0)
    assert torch.allclose(features.mean(0), torch.zeros(FEATURES), atol=1e-4)
    assert torch.allclose(covariance, torch.eye(FEATURES), atol=1e-2)


def test_a_direction_that_tells_two_kinds_of_input_apart_leads() -> None:
    torch.manual_seed(0)
    kind = torch.randint(2, (200, 1)).float()
    rows = torch.cat([torch.randn(200, 40), 100 + 3 * kind + 0.1 * torch.randn(200, 10), torch.ones(200, 1)], 1)
    directions = principal_directions(rows, 8)
    first = (rows - rows.mean(0)) @ directions[:, 0]
    assert abs(float(torch.corrcoef(torch.stack([first, kind[:, 0]]))[0, 1])) > 0.95
    assert principal_directions(rows[:3], 8).shape == (51, 2), "three rows vary in two directions"
    assert torch.isfinite(directions).all()


def test_padding_does_not_change_a_gate() -> None:
    trainer = gated()
    gates = trainer.adapters.gates
    batch = inputs([0, 1])
    trainer.model.eval()
    with torch.no_grad():
        trainer.model(**batch)
        short = gates.values.clone()
        trainer.model(**{k: torch.nn.functional.pad(v, (0, 8)) for k, v in batch.items()})
    assert torch.allclose(gates.values, short, atol=1e-6)


def test_gates_react_to_the_input_after_training_and_stay_within_their_range() -> None:
    trainer = gated()
    gate = trainer.predictions(trainer.tokens).gate
    assert gate.shape == (len(trainer.tokens), len(trainer.adapters))
    assert gate.std(0).max() > 1e-3
    assert ((gate > 0) & (gate < 2)).all()


def test_gradient_checkpointing_sees_the_same_gates() -> None:
    gradients = []
    for checkpointed in (False, True):
        trainer = gated()
        if checkpointed:
            trainer.model.activation_checkpointing_enable({"use_reentrant": False})
        trainer.model.train()
        batch = tiny_tokens().batch(range(6))
        trainer.model(**batch).loss.backward()
        gradients.append(trainer.adapters.gates.weight.grad.clone())
    assert gradients[0].abs().max() > 0
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_baked_gates_are_the_mean() -> None:
    trainer = gated()
    model = adapted(trainer)
    mean = mean_gates(model, trainer.tokens)
    scaling = [module.scaling for module in trainer.adapters]
    bake_gates(model, mean)
    assert trainer.adapters.gates is None
    assert not any("gate" in name for name in trainer.model.state_dict()), "a merged export would hold them"
    for module, before, gate in zip(trainer.adapters, scaling, mean, strict=True):
        assert abs(module.scaling - before * float(gate)) < 1e-7


@pytest.mark.parametrize("mode", ["module", "token", "rank"])
def test_means_of_gates_take_no_forward_beyond_the_embeddings_and_are_equal_to_the_bit(mode: str) -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy={"name": "dynamic", "gates": mode}, train__lr=1e-2))
    trainer.train(MemoryKeeper())
    model, gates = adapted(trainer), trainer.adapters.gates
    if mode == "rank":
        sums = torch.zeros_like(gates.bias)
        with gates.adding_up(sums):
            model.readings(trainer.tokens)
        whole = sums / len(trainer.tokens)
    else:
        whole = torch.from_numpy(model.predictions(trainer.tokens).gate.mean(0))
    ran: list[nn.Module] = []
    for module in trainer.adapters:
        module.register_forward_hook(lambda module, *_: ran.append(module))
    mean = mean_gates(model, trainer.tokens)
    assert torch.equal(mean, whole)
    assert (mean - 1).abs().max() > 1e-4, "the gates learned, or this shows nothing"
    assert ran == []
    model.predictions(trainer.tokens)
    assert ran, "the next forward is a whole one"


def test_every_token_has_its_own_gate_and_padding_none() -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy={"name": "dynamic", "gates": "token"}, train__lr=1e-2))
    gates = trainer.adapters.gates
    trainer.train(MemoryKeeper())
    trainer.model.eval()
    batch = inputs([0, 1, 2])
    with torch.no_grad():
        logits = trainer.model(**batch).logits
        per_token, recorded = gates.column(0).clone(), gates.values.clone()
        padded = trainer.model(**{k: torch.nn.functional.pad(v, (0, 8)) for k, v in batch.items()}).logits
    assert per_token.shape == batch["input_ids"].shape
    assert per_token[batch["attention_mask"].bool()].std() > 1e-4
    mask = batch["attention_mask"].float()
    assert torch.allclose(recorded[:, 0], (per_token * mask).sum(1) / mask.sum(1), atol=1e-6)
    assert torch.allclose(gates.values, recorded, atol=1e-6)
    assert torch.allclose(logits, padded, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "architecture"), [("module", "bert"), ("token", "bert"), ("token", "llama"), ("token", "gpt2")]
)
def test_gates_start_at_exactly_one_with_standardised_features(mode: str, architecture: str) -> None:
    config = tiny_config("dynamic", strategy={"name": "dynamic", "gates": mode})
    trainer = make_trainer(config, architecture)
    gates, batch = trainer.adapters.gates, tiny_tokens().batch(range(16))
    trainer.model.eval()
    with torch.no_grad():
        trainer.model(**batch)
    heard = gates.features if mode == "module" else gates.features[batch["attention_mask"].bool()]
    assert torch.allclose(heard.mean(0), torch.zeros(8), atol=1e-3)
    assert torch.allclose(heard.std(0, correction=0), torch.ones(8), atol=1e-3)
    assert gates.values.shape == (16, len(trainer.adapters))
    for index in range(len(trainer.adapters)):
        assert torch.equal(gates.column(index), torch.ones_like(gates.column(index)))


PER_COMPONENT = {**GATED, "gates": "rank"}


def test_every_component_has_its_own_gate_paid_from_the_budget() -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy=PER_COMPONENT, train__lr=1e-2))
    adapters = trainer.adapters
    trainer.train(MemoryKeeper())
    count = adapters.adapter_parameter_count()
    assert count["gate"] == 9 * sum(adapters.ranks)
    assert count["active"] + count["gate"] <= count["budget"]
    gates = adapters.gates
    trainer.model(**tiny_tokens().batch(range(4)))
    for index, module in enumerate(adapters):
        own = gates.column(index)
        assert own.shape == (4, max(m.max_rank for m in adapters))
        assert torch.equal(own[:, module.rank :], torch.ones_like(own[:, module.rank :]))
        expected = own[:, : module.rank].mean(1) if module.rank else torch.ones(4)
        assert torch.allclose(gates.values[:, index], expected, atol=1e-6)
        if module.rank > 1:
            assert own[0, : module.rank].std() > 0


def test_a_dropped_component_takes_its_gate_along() -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy=PER_COMPONENT, train__lr=1e-2, adapter__rank=3))
    trainer.train(MemoryKeeper())
    adapters, gates, optimizer = trainer.adapters, trainer.adapters.gates, trainer.optimizer
    index = max(range(len(adapters)), key=lambda m: adapters[m].rank)
    rank = adapters[index].rank
    weight, moment = gates.weight[index].detach().clone(), optimizer.state[gates.weight]["exp_avg"][index].clone()
    apply(adapters, [Drop(index, 0)], optimizer, step=1)
    assert torch.equal(gates.weight[index, : rank - 1], weight[1:rank])
    assert torch.equal(optimizer.state[gates.weight]["exp_avg"][index, : rank - 1], moment[1:rank])
    assert not gates.weight[index, rank - 1 :].any()
    assert not gates.bias[index, rank - 1 :].any()
    apply(adapters, [Grow(index)], optimizer, step=2)
    assert not gates.weight[index, rank - 1].any(), "a grown component begins with a gate of one"
    moments = optimizer.state[gates.weight]
    assert not moments["exp_avg"][index, rank - 1].any()
    second = moments["exp_avg_sq"][index]
    assert second[rank - 1].all(), "no second moment would make its first steps too long"
    torch.testing.assert_close(second[rank - 1], second[: rank - 1].mean(0))


def test_baked_component_gates_are_their_means() -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy=PER_COMPONENT, train__lr=1e-2))
    trainer.train(MemoryKeeper())
    model = adapted(trainer)
    mean = mean_gates(model, trainer.tokens)
    trainer.model.eval()
    trainer.model(**trainer.tokens.batch(range(len(trainer.tokens))))
    expected = torch.stack([trainer.adapters.gates.column(m).mean(0) for m in range(len(trainer.adapters))])
    assert torch.allclose(mean, expected, atol=1e-5)
    before = [module.delta_weight() for module in trainer.adapters]
    columns = [module.lora_B.detach().clone() for module in trainer.adapters]
    bake_gates(model, mean)
    for m, module in enumerate(trainer.adapters):
        B = columns[m] * mean[m, : module.max_rank]
        assert torch.allclose(
            module.delta_weight(), module.scaling * B[:, : module.rank] @ module.lora_A[: module.rank]
        )
        assert module.delta_weight().shape == before[m].shape


def test_a_gate_that_rounds_to_zero_has_a_finite_gradient() -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy=GATED))
    gates = trainer.adapters.gates
    with torch.no_grad():
        gates.bias.fill_(-200.0)
    trainer._loss(tiny_tokens().batch(range(8))).backward()
    assert gates.column(0).max() < 1e-20
    assert torch.equal(gates.bias.grad, torch.zeros_like(gates.bias))


def test_a_learned_scale_is_a_gate_that_does_not_see_the_input() -> None:
    """With weights held at zero a gate is its bias alone: both must give the same output and the same gradient."""
    trainer = make_trainer(tiny_config("dynamic", strategy={**GATED, "allocation": "none"}))
    gates, batch = trainer.adapters.gates, tiny_tokens().batch(range(6))
    with torch.no_grad():
        gates.bias.copy_(torch.linspace(-1, 1, len(gates.bias)))
        for module in trainer.adapters:
            module.lora_B.normal_()
    loss = trainer.model(**batch).loss
    loss.backward()
    for module, logit in zip(trainer.adapters, gates.bias.detach(), strict=True):
        module.gates = None
        module.learn_scale()
        module.scale_logit.data.copy_(logit)
    scaled = trainer.model(**batch).loss
    scaled.backward()
    gradients = torch.stack([module.scale_logit.grad for module in trainer.adapters])
    torch.testing.assert_close(scaled, loss)
    torch.testing.assert_close(gradients, gates.bias.grad, rtol=1e-4, atol=1e-7)
    assert gradients.abs().max() > 1e-4


@pytest.mark.parametrize(("name", "setting"), [("lora", {"scale": "learned"}), ("dynamic", {"gates": "scale"})])
def test_learned_scales_move_are_recorded_and_paid_from_the_budget(name: str, setting: dict[str, str]) -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config(name, strategy={"name": name, **setting}, train__lr=1e-2), recorder=recorder)
    trainer.train(MemoryKeeper())
    count = trainer.adapters.adapter_parameter_count()
    assert count["active"] <= count["budget"] == sum(2 * module.info.cost for module in trainer.adapters)
    assert count["gate"] == 0
    assert trainer.adapters.gates is None, "nothing reads the input"
    scales = recorder.vectors["scale"]
    assert abs(scales[1] - 1).max() < 0.02, "they start at one"
    assert abs(scales[20] - 1).max() > 1e-3


def test_a_rate_of_zero_keeps_scales_at_one() -> None:
    fields = {"name": "lora", "scale": "learned", "scale_lr_ratio": 0.0}
    trainer = make_trainer(tiny_config("lora", strategy=fields, train__lr=1e-2))
    trainer.train(MemoryKeeper())
    assert all(module.scale_logit.item() == 0 for module in trainer.adapters)


@pytest.mark.parametrize(
    ("settings", "rate"), [({"gates": "module"}, 10), ({}, 1), ({"gates": "token", "scale_lr_ratio": 2}, 2)]
)
def test_gates_that_see_the_input_learn_at_ten_times_the_rate_of_a(settings: dict[str, object], rate: float) -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy={"name": "dynamic", **settings}))
    assert trainer.strategy.groups(trainer.adapters)[-1]["lr_factor"] == rate


def test_what_reacting_is_worth_is_recorded_at_the_end_of_a_run_with_gates() -> None:
    """The mean stands for the gates, so that the difference is what the reaction does; without gates there is none."""
    recorders = {}
    for gates in ("module", "off"):
        recorders[gates] = ListRecorder()
        fields = {"name": "dynamic", "gates": gates, "scale_lr_ratio": 1.0}
        trainer = make_trainer(tiny_config("dynamic", strategy=fields, train__lr=1e-2), recorder=recorders[gates])
        trainer.train(MemoryKeeper())
        if gates == "module":
            with torch.no_grad():
                trainer.adapters.gates.weight.mul_(20)
            exaggerated = trainer.reaction(trainer.adapters.gates, trainer.predictions(trainer.evaluation.tokens))
    events = [(step, payload) for step, kind, _, payload in recorders["module"].events if kind == "gate_reaction"]
    assert [step for step, _ in events] == [20]
    trained = events[0][1]
    assert abs(exaggerated["lowers_by"]) > 5 * abs(trained["lowers_by"]) > 0
    assert trained["low"] < trained["lowers_by"] < trained["high"]
    assert trained["n"] == trained["of"] == len(trainer.evaluation.tokens)
    assert not [kind for _, kind, *_ in recorders["off"].events if kind == "gate_reaction"]


def test_a_reaction_is_measured_by_group() -> None:
    with_gates = np.zeros(40)
    at_mean = np.where(np.arange(40) < 20, 0.5, 0.0)
    reaction_by_group = reaction(at_mean, with_gates, 100, np.arange(40) // 20, ["helped", "not", "empty"])
    assert (reaction_by_group["n"], reaction_by_group["of"], reaction_by_group["lowers_by"]) == (40, 100, 0.25)
    assert [(one["group"], one["lowers_by"], one["low"]) for one in reaction_by_group["groups"]] == [
        ("helped", 0.5, 0.5),
        ("not", 0.0, 0.0),
    ]
    assert reaction(at_mean[:1], with_gates[:1], 1, None, [])["low"] is None
