"""Tiny teachers of a tiny backbone: each learns a task of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from dynlora.store.catalogue import run_rows
from dynlora.training.run import train
from tests.conftest import Once
from tests.tiny import PLAIN, save_tiny, tiny_config, write_csv

TASKS: Sequence[Mapping[str, str]] = (
    {"good": "great", "bad": "awful"},
    {"film": "film", "story": "story", "plot": "plot"},
    {"music": "music", "cast": "cast"},
)
"""Classes of each teacher, and the word that tells each."""


def task_rows(task: Mapping[str, str], n: int, seed: int) -> list[dict[str, str]]:
    """Return rows of a task: one telling word among plain ones."""
    rng = np.random.default_rng(seed)
    plain = [word for word in PLAIN if word not in {one for words in TASKS for one in words.values()}]
    rows = []
    for index in range(n):
        label = list(task)[index % len(task)]
        words = [*rng.choice(plain, size=3), task[label], task[label]]
        rows.append({"text": " ".join(map(str, rng.permutation(words))), "label": label})
    return rows


def train_teacher(
    runs: Path,
    model: Path,
    task: Mapping[str, str],
    number: int,
    strategy: str = "lora",
    rank: int = 2,
    layers: int | None = None,
    targets: Sequence[str] | None = None,
) -> Path:
    """Train a teacher and return its folder."""
    data = runs.parent / f"data-{number}"
    data.mkdir(exist_ok=True)
    write_csv(data / "train.csv", task_rows(task, 120, seed=number))
    write_csv(data / "validation.csv", task_rows(task, 40, seed=100 + number))
    config = tiny_config(
        model,
        data,
        name=f"teacher {number}",
        adapter__rank=rank,
        strategy__name=strategy,
        train__steps=60,
        log__eval_every=60,
        log__checkpoint_every=60,
        model__layers=layers,
        adapter__targets=targets,
    )
    outcome = train(config, runs)
    assert outcome.state == "finished", outcome.error
    return outcome.folder


@pytest.fixture(scope="session")
def backbone(once: Once) -> Path:
    """Return the folder of a tiny encoder."""
    return once.made("backbone", lambda folder: save_tiny("bert", folder / "bert"))


@pytest.fixture(scope="session")
def taught(backbone: Path, once: Once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a runs folder with three teachers of one backbone, of different ranks and methods.

    Tests recycle in it: each worker has a copy.
    """

    def teach(folder: Path) -> Path:
        for number, (task, strategy) in enumerate(zip(TASKS, ("lora", "dynamic", "lora"), strict=True)):
            train_teacher(folder / "runs", backbone, task, number, strategy, rank=2 + number % 2)
        return folder / "runs"

    return shutil.copytree(once.made("taught", teach), tmp_path_factory.mktemp("taught") / "runs")


@pytest.fixture(scope="session")
def teacher_ids(taught: Path) -> list[str]:
    """Return the ids of the teachers, in the order they were made; recycles come beside them later."""
    runs = [row for row in run_rows(taught) if str(row["name"]).startswith("teacher ")]
    return [row["id"] for row in sorted(runs, key=lambda row: row["name"])]
