"""Input gates: one at the start, one product a forward, fixed features, bakeable."""

from __future__ import annotations

import pytest
import torch

from dynlora.engine.inference import AdaptedModel, bake_gates, mean_gates
from tests.engine.harness import MemoryKeeper, make_trainer, tiny_config, tiny_tokens


def gated():
    """Return a trainer with gates, trained a little."""
    trainer = make_trainer(tiny_config("dynamic", train__lr=1e-2))
    trainer.train(MemoryKeeper())
    return trainer


def test_gates_start_at_exactly_one() -> None:
    trainer = make_trainer(tiny_config("dynamic"))
    trainer.model(**{k: v for k, v in tiny_tokens().batch(range(5)).items() if k != "labels"})
    gates = trainer.adapters.gates
    assert gates.values.shape == (5, len(trainer.adapters))
    assert torch.equal(gates.values, torch.ones_like(gates.values))


def test_features_are_standardised_on_the_calibration_batches() -> None:
    trainer = make_trainer(tiny_config("dynamic"))
    gates = trainer.adapters.gates
    trainer.model.eval()
    with torch.no_grad():
        trainer.model(**{k: v for k, v in tiny_tokens().batch(range(16)).items() if k != "labels"})
    assert torch.allclose(gates.features.mean(0), torch.zeros(8), atol=1e-4)
    assert torch.allclose(gates.features.std(0, correction=0), torch.ones(8), atol=1e-3)


def test_padding_does_not_change_a_gate() -> None:
    trainer = gated()
    gates = trainer.adapters.gates
    batch = {k: v for k, v in tiny_tokens().batch([0, 1]).items() if k != "labels"}
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
    model = AdaptedModel(
        type("Base", (), {"model": trainer.model})(),
        trainer.adapters,
        trainer.strategy,
        ["no", "yes"],
        "classification",
        16,
        trainer.autocast,
    )
    mean = mean_gates(model, trainer.tokens)
    scaling = [module.scaling for module in trainer.adapters]
    bake_gates(model, mean)
    assert trainer.adapters.gates is None
    assert not any("gate" in name for name in trainer.model.state_dict()), "a merged export would hold them"
    for module, before, gate in zip(trainer.adapters, scaling, mean, strict=True):
        assert abs(module.scaling - before * float(gate)) < 1e-7


def test_every_token_has_its_own_gate_and_padding_none() -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy={"name": "dynamic", "gates": "token"}, train__lr=1e-2))
    gates = trainer.adapters.gates
    trainer.train(MemoryKeeper())
    trainer.model.eval()
    batch = {k: v for k, v in tiny_tokens().batch([0, 1, 2]).items() if k != "labels"}
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


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
def test_token_gates_start_at_one_and_are_standardised(architecture: str) -> None:
    config = tiny_config("dynamic", strategy={"name": "dynamic", "gates": "token"})
    trainer = make_trainer(config, architecture)
    gates, batch = trainer.adapters.gates, tiny_tokens().batch(range(16))
    trainer.model.eval()
    with torch.no_grad():
        trainer.model(**{k: v for k, v in batch.items() if k != "labels"})
    heard = gates.features[batch["attention_mask"].bool()]
    assert torch.allclose(heard.mean(0), torch.zeros(8), atol=1e-3)
    assert torch.allclose(heard.std(0, correction=0), torch.ones(8), atol=1e-3)
    assert torch.equal(gates.column(1), torch.ones_like(gates.column(1)))
