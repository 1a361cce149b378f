"""Runs that learned to write, which the tests of this folder only read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynlora.config import parse_config
from dynlora.training import run
from tests.conftest import Once
from tests.tiny_lm import lm_values, save_problems, save_tiny_lm


def written_run(folder: Path, **settings: Any) -> Path:
    """Train a tiny Llama on problems, the model and the data beside its runs."""
    (folder / "data").mkdir()
    values = lm_values(save_tiny_lm(folder / "model"), save_problems(folder / "data"), **settings)
    outcome = run.train(parse_config(values), folder / "runs", progress=False)
    assert outcome.state == "finished", outcome.error
    return outcome.folder


@pytest.fixture(scope="session")
def gated_writer(once: Once) -> Path:
    """A run of `dynamic` with gates."""
    strategy = {"name": "dynamic", "gates": "module"}
    return once.made("gated-writer", lambda folder: written_run(folder, strategy=strategy))


@pytest.fixture(scope="session")
def lora_writer(once: Once) -> Path:
    """A run of plain LoRA, with retention measured."""
    strategy = {"name": "lora"}
    return once.made("lora-writer", lambda folder: written_run(folder, strategy=strategy, log__retention=1))
