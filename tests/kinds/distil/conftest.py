"""Tiny teachers of a tiny decoder: each learns to write something of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dynlora.config import parse_config
from dynlora.kinds.distil.settings import DistilSettings
from dynlora.store.catalogue import run_rows
from dynlora.training.run import train
from tests.conftest import Once
from tests.kinds.work import work
from tests.tiny_lm import lm_values, save_lines, save_tiny_lm

SAID = ("abababab", "cdcdcdcd", "efefef")
"""What each teacher learns to write."""


def train_writer(runs: Path, model: Path, text: str, number: int, **overrides: Any) -> Path:
    """Train a teacher that writes one text in two ways, and return its folder."""
    data = runs.parent / f"texts-{number}"
    data.mkdir(exist_ok=True)
    for name, count in (("train", 48), ("validation", 12)):
        save_lines(data / f"{name}.jsonl", [{"text": text[: len(text) - index % 2]} for index in range(count)])
    values = lm_values(
        model,
        data,
        name=f"teacher {number}",
        adapter__rank=2 + number,
        data__task="causal_lm",
        log__generate_rows=1,
        **{"train__steps": 30, "log__eval_every": 30, **overrides},
    )
    outcome = train(parse_config(values), runs)
    assert outcome.state == "finished", outcome.error
    return outcome.folder


def settings_of(teachers: list[str], **values: Any) -> DistilSettings:
    """Return settings of a distillation that takes a second."""
    small = {"samples": 20, "held_out": 10, "tokens": 10, "train_steps": 12, "batch_size": 6, "rank": 3, "lr": 1e-2}
    return DistilSettings.parse({"teachers": teachers, **small, **values})


def made_student(place: Path) -> Path:
    """Train two teachers into a folder and let them teach a student; returns the folder of the distillation."""
    model = save_tiny_lm(place / "llama")
    teachers = [train_writer(place / "runs", model, text, number).name for number, text in enumerate(SAID[:2])]
    outcome = work(settings_of(teachers, samples=8, held_out=4), place / "runs")
    assert outcome.state == "finished", outcome.error
    return outcome.folder


@pytest.fixture(scope="session")
def decoder(once: Once) -> Path:
    """Return the folder of a tiny decoder."""
    return once.made("decoder", lambda folder: save_tiny_lm(folder / "llama"))


@pytest.fixture(scope="session")
def writers(decoder: Path, once: Once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a runs folder with three teachers of one decoder, of different ranks and methods.

    Tests distil in it: each worker has a copy.
    """

    def teach(folder: Path) -> Path:
        for number, (text, strategy) in enumerate(zip(SAID, ("lora", "dynamic", "lora"), strict=True)):
            gates = {"strategy__gates": "module"} if strategy == "dynamic" else {}
            train_writer(folder / "runs", decoder, text, number, strategy__name=strategy, **gates)
        return folder / "runs"

    return shutil.copytree(once.made("writers", teach), tmp_path_factory.mktemp("writers") / "runs")


@pytest.fixture(scope="session")
def writer_ids(writers: Path) -> list[str]:
    """Return the ids of the teachers, in the order they were made."""
    runs = [row for row in run_rows(writers) if str(row["name"]).startswith("teacher ")]
    return [row["id"] for row in sorted(runs, key=lambda row: row["name"])]
