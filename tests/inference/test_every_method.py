"""Every registered method can be examined and compressed, or refuses. Some always, all in `make torture`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import dynlora
from dynlora import strategies
from dynlora.errors import NotMergeableError
from dynlora.inference.compress import Compression
from dynlora.inference.session import Examined
from tests.tiny import tiny_config

REFUSE = ("glora", "lora_ensemble")
"""Methods whose update is not low-rank, or is not one."""

ALWAYS = ("adalora", *REFUSE, "xgblora")
NAMES = [
    name if name in ALWAYS else pytest.param(name, marks=pytest.mark.torture) for name in sorted(strategies.registry())
]


@pytest.fixture(scope="module", params=NAMES)
def trained(
    request: pytest.FixtureRequest, tiny_bert: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run of a method; tests only read it."""
    config = tiny_config(tiny_bert, tiny_data, strategy={"name": request.param}, adapter__rank=4, train__steps=12)
    return dynlora.train(config, tmp_path_factory.mktemp(request.param), progress=False).folder


def test_a_method_can_be_examined(trained: Path) -> None:
    examined = Examined(trained)
    *_, knockout = examined.knockouts([(0,), (1, 2)], rows=16)
    assert all(math.isfinite(effect.delta) for effect in knockout.effects)
    with examined.model.adapters.disabled():
        base = examined.answers(["great film"], None)
    assert examined.answers(["great film"], None, "base") == base
    explanation = examined.explained("the film was great", None)
    assert len(explanation["without"]) == len(examined.model.adapters)
    assert math.isfinite(explanation["margin"])
    assert examined.shifted("cut", 0.5, rows=16)["after"]["rows"] == 16


def test_a_method_is_taken_apart_or_refuses(trained: Path) -> None:
    if dynlora.open_run(trained).summary["strategy"] in REFUSE:
        with pytest.raises(NotMergeableError, match="[^\n]+"):
            Compression.of_run(trained, rows=40, weighting="plain")
        return
    compression = Compression.of_run(trained, rows=40, weighting="plain")
    *_, last = compression.sizes("last", [("global", 1.0), ("global", 0.5)])
    assert last.sizes[0].reported_on.difference == pytest.approx(0, abs=1e-4)
    assert math.isfinite(last.sizes[1].reported_on.loss)
