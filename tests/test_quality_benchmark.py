"""The comparison at equal budget: what its intervals mean, which rates it takes, and what it holds against what."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import tables
from benchmarks.quality.methods import CORE, GRIDS, METHODS, rates_source
from benchmarks.quality.paired import paired_difference
from benchmarks.quality.runs import Job
from benchmarks.quality.tasks import TASKS, Task, task_data
from tests.tiny import save_data


def test_a_constant_shift_is_told_from_zero_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    base = [rng.normal(0.4, 0.3, 500) for _ in range(3)]
    shifted = [values - 0.01 for values in base]
    found = paired_difference(shifted, base)
    assert found.mean == pytest.approx(-0.01)
    assert found.low == pytest.approx(-0.01)
    assert found.verdict == "better"
    assert found.chance == 0
    noisy = [values + rng.normal(0, 0.3, 500) for values in base]
    assert paired_difference(noisy, base).verdict == "open"


def test_one_good_seed_of_two_is_no_finding() -> None:
    base = [np.zeros(400), np.zeros(400)]
    found = paired_difference([np.full(400, -0.05), np.full(400, 0.02)], base)
    assert found.mean == pytest.approx(-0.015)
    assert found.low == pytest.approx(-0.05)
    assert found.high == pytest.approx(0.02)
    assert found.verdict == "open"


def keep(folder: Path, method: str, seed: int, losses: list[int], purpose: str = "report", lr: float = 1e-3) -> None:
    job = Job(purpose, "sst2", method, 1, seed, lr)
    made: dict[str, Any] = {
        "job": vars(job),
        "metrics": {"loss": sum(losses) / len(losses) / 1000, "accuracy": 0.5},
        "parameters": {"active": 1, "budget": 1, "gate": 0},
        "loss": losses,
        "right": "10" * (len(losses) // 2),
    }
    (folder / job.file_name).write_text(json.dumps(made), "utf-8")


def test_the_summary_pairs_shared_seeds_only(tmp_path: Path) -> None:
    for seed in (100, 101, 102):
        keep(tmp_path, "peft-lora", seed, [400, 500, 600, 700])
    for seed in (100, 101):
        keep(tmp_path, "dynamic", seed, [390, 490, 590, 690])
    (cell,) = tables.summary(tmp_path)["cells"]
    assert [row["method"] for row in cell["methods"]] == ["peft-lora", "dynamic"]
    (row,) = [row for row in cell["differences"] if (row["method"], row["against"]) == ("dynamic", "peft-lora")]
    assert row["loss"]["seeds"] == 2
    assert row["loss"]["mean"] == pytest.approx(-0.01)
    assert row["verdict"] == "better"


def test_a_rate_that_diverges_is_not_chosen(tmp_path: Path) -> None:
    assert tables.chosen_rate(tmp_path, "minilm", "sst2", "lora", 1) is None
    for lr, loss in ((2e-3, 320), (4e-3, 300), (8e-3, 9000)):
        keep(tmp_path, "lora", 0, [loss] * 4, "tune", lr)
    keep(tmp_path, "dynamic", 0, [1] * 4, "tune", 2e-3)
    assert tables.chosen_rate(tmp_path, "minilm", "sst2", "lora", 1) == 4e-3


def test_every_method_can_be_named_and_finds_a_rate() -> None:
    assert set(CORE) <= set(METHODS)
    for name, method in METHODS.items():
        assert rates_source(rates_source(name)) == rates_source(name)
        assert method.engine in ("dynlora", "peft")
    names = {
        Job(purpose, task, method, rank, 0, lr).file_name
        for purpose in ("tune", "report") for task in TASKS for method in METHODS for rank in GRIDS for lr in (1e-3,)
    }  # fmt: skip
    assert len(names) == 2 * len(TASKS) * len(METHODS) * len(GRIDS)


def test_no_row_is_used_twice(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    save_data(folder)
    task = Task("tiny", "accuracy", 16, 100, reported=20, tuning=30)
    report, tune = (task_data(task, tmp_path, purpose) for purpose in ("report", "tune"))
    assert (len(report.held_out), len(tune.held_out), len(report.train)) == (20, 30, 150)
    assert report.train.text == tune.train.text
    everything = Counter([*report.train.text, *report.held_out.text, *tune.held_out.text])
    assert everything == Counter(pd.read_csv(folder / "train.csv")["text"])


def test_a_task_without_its_folder_says_so() -> None:
    with pytest.raises(SystemExit, match="holds no folder sst2"):
        TASKS["sst2"].section(None)


def test_a_best_rate_at_the_edge_asks_for_the_next_and_stops_in_the_end(tmp_path: Path) -> None:
    def beyond() -> float | None:
        return tables.rate_beyond(tmp_path, "minilm", "sst2", "dynamic", 1)

    assert beyond() is None, "nothing was tuned"
    for lr, loss in ((2e-3, 500), (4e-3, 400), (8e-3, 300)):
        keep(tmp_path, "dynamic", round(lr * 1e6), [loss, loss], "tune", lr)
    assert beyond() == pytest.approx(16e-3)
    keep(tmp_path, "dynamic", 1, [350, 350], "tune", 16e-3)
    assert beyond() is None, "the best lies inside now"
    keep(tmp_path, "dynamic", 2, [200, 200], "tune", 1e-3)
    assert beyond() is None, "enough rates were tried"
