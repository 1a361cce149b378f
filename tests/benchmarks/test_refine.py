"""Reweighted singular values: the model that is taken apart is the same, and the derivatives are those of the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.refine import Setting, factors, gradients, reweighted, take_apart
from dynlora.contracts.harness import make_trainer, tiny_config
from dynlora.engine.loop.trainer import Trainer

SETTING = Setting(batches=1, batch=8)


@pytest.fixture
def trainer() -> Trainer:
    """A trained tiny model, its updates taken apart."""
    made = make_trainer(tiny_config("lora", train__lr=2e-2), "bert")
    order, signals = made.begin()
    for _ in range(6):
        made.take_step(order, signals)
    return made


def loss(trainer: Trainer) -> float:
    """The mean loss of all training examples, of which a batch of the calibration is made."""
    return float(trainer.predictions(trainer.tokens).loss.mean())


def test_taking_apart_leaves_the_model(trainer: Trainer) -> None:
    before = trainer.predictions(trainer.tokens).loss
    take_apart(trainer)
    assert np.allclose(before, trainer.predictions(trainer.tokens).loss, atol=1e-4)
    for module in trainer.adapters:
        product = (module.lora_B.t() @ module.lora_B).detach()
        assert torch.allclose(product, torch.diag(product.diagonal()), atol=1e-5)


def test_derivatives_are_those_of_the_loss(trainer: Trainer) -> None:
    take_apart(trainer)
    whole = Setting(batches=1, batch=len(trainer.tokens))
    module, read = next(iter(trainer.adapters)), gradients(trainer, whole)[0][0]
    sigma = float(module.lora_B[:, 0].detach().double().square().sum())
    losses = []
    for factor in (1.05, 0.95):
        with torch.no_grad():
            module.lora_B[:, 0].mul_(factor)
        losses.append(loss(trainer))
        with torch.no_grad():
            module.lora_B[:, 0].div_(factor)
    assert float(read[0]) == pytest.approx((losses[0] - losses[1]) / (0.1 * sigma), rel=0.05, abs=1e-5)


def test_reweighting_keeps_the_sum_of_each_module_and_ends_with_the_block(trainer: Trainer) -> None:
    take_apart(trainer)
    before, read, values = loss(trainer), gradients(trainer, SETTING), singular_values(trainer)
    for way in ("absolute", "signed"):
        by = [factors(one, way) for one in read]
        with reweighted(trainer, by):
            for old, new, one in zip(values, singular_values(trainer), by, strict=True):
                assert float(new.sum()) == pytest.approx(float(old.sum()))
                assert torch.allclose(new / old, one * (new / old / one)[0])
            assert any(not torch.allclose(old, new) for old, new in zip(values, singular_values(trainer), strict=True))
        assert loss(trainer) == pytest.approx(before)


def singular_values(trainer: Trainer) -> list[torch.Tensor]:
    """Those of each module that was taken apart, before its scaling."""
    return [(module.lora_B.norm(dim=0) * module.lora_A.norm(dim=1)).detach().double() for module in trainer.adapters]
