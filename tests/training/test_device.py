"""Training where the machine's accelerator is, held against the processor; `make gpu` runs this where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from dynlora import strategies
from dynlora.engine.recorder import NullRecorder
from dynlora.training.build import build_trainer, make_accelerator
from dynlora.training.inputs import load_inputs
from tests.tiny import tiny_config

STEPS = 6
METHODS = sorted(strategies.registry()) if torch.cuda.is_available() else ["dynamic", "lora"]


def losses(config: Any, accelerator: Accelerator) -> list[float]:
    """Return the losses of the first steps; adapters must be on the device."""
    trainer = build_trainer(load_inputs(config), NullRecorder(), accelerator)
    order, signals = trainer.begin()
    trainer.model.train()
    values = []
    for _ in range(STEPS):
        trainer.take_step(order, signals)
        values.append(trainer.loss)
    assert {parameter.device.type for parameter in trainer.model.parameters()} == {accelerator.device.type}
    return values


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_on_the_accelerator_as_on_the_processor(name: str, tiny_bert: Path, tiny_data: Path) -> None:
    still = {"adapter__dropout": 0.0, "model__dropout": 0.0, "train__precision": "fp32"}
    config = tiny_config(tiny_bert, tiny_data, strategy__name=name, **still)
    there, here = losses(config, make_accelerator()), losses(config, Accelerator(cpu=True))
    assert len(set(here)) == STEPS
    assert np.allclose(there, here, atol=1e-3)
