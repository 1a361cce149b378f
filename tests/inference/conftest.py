"""What the tests of trained models share: a run that writes, and exports of runs; tests only read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dynlora.config import parse_config
from dynlora.inference.export import export_run
from dynlora.training import run as training_run
from tests.conftest import Once
from tests.tiny_lm import lm_values, save_problems, save_tiny_lm


@pytest.fixture(scope="session")
def writer(once: Once) -> Path:
    """Folder of a run of `dynamic` with gates on a tiny Llama that learned to write, with retention measured."""

    def train(folder: Path) -> Path:
        (folder / "data").mkdir()
        values = lm_values(
            save_tiny_lm(folder / "model"),
            save_problems(folder / "data"),
            strategy={"name": "dynamic", "gates": "module"},
            log__retention=1,
        )
        outcome = training_run.train(parse_config(values), folder / "runs", progress=False)
        assert outcome.state == "finished", outcome.error
        return outcome.folder

    return once.made("writer", train)


@pytest.fixture(scope="session")
def exported(once: Once) -> Callable[[Path, str], Path]:
    """What exports a run in a form, once for all, and returns the folder."""

    def export(run: Path, form: str) -> Path:
        def make(folder: Path) -> Path:
            export_run(run, folder / form, format=form)
            return folder / form

        return once.made(f"{run.name}-{form}", make)

    return export
