"""CONTRIBUTING's "add a strategy in one file" is carried out: a file is dropped in and found everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynlora import strategies
from tests.engine.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text("utf-8")


@pytest.fixture
def dropped_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Put the example's code into a folder that the registry looks in."""
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "drop_one.py").write_text(code, "utf-8")
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    strategies.registry.cache_clear()
    yield "drop_one"
    strategies.registry.cache_clear()


def test_example_strategy_is_registered_described_and_trains(dropped_in: str) -> None:
    described = strategies.describe(dropped_in)
    assert described["title"] == "Drop one"
    assert "after" in {field["name"] for field in described["fields"]}
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config(dropped_in), recorder=recorder)
    trainer.train(MemoryKeeper())
    assert {module.rank for module in trainer.adapters} == {1}
    assert [step for step, kind, _, _ in recorder.events if kind == "reallocate"] == [6]
