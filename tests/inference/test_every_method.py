"""Every registered method can be examined: knocked out, explained, shifted. Some always, all in `make torture`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import dynlora
from dynlora import strategies
from dynlora.inference.session import Examined
from tests.tiny import tiny_config

ALWAYS = ("glora", "lora_ensemble", "xgblora")
NAMES = [
    name if name in ALWAYS else pytest.param(name, marks=pytest.mark.torture) for name in sorted(strategies.registry())
]


@pytest.mark.parametrize("name", NAMES)
def test_a_method_can_be_examined(name: str, tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_bert, tiny_data, strategy={"name": name}, adapter__rank=4, train__steps=24)
    examined = Examined(dynlora.train(config, tmp_path, progress=False).folder)
    *_, knockout = examined.knockouts([(0,), (1, 2)], rows=16)
    assert all(math.isfinite(effect.delta) for effect in knockout.effects)
    with examined.model.adapters.disabled():
        base = examined.answers(["great film"], None)
    assert examined.answers(["great film"], None, "base") == base
    explanation = examined.explained("the film was great", None)
    assert len(explanation["without"]) == len(examined.model.adapters)
    assert math.isfinite(explanation["margin"])
    assert examined.shifted("cut", 0.5, rows=16)["after"]["rows"] == 16
