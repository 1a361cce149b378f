"""The comparison at equal budget: what its intervals mean, which rates it takes, and what it holds against what."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.kept_runs import KeptRuns
from benchmarks.quality import __main__ as quality
from benchmarks.quality import tables
from benchmarks.quality.markdown import methods_table, quality_table
from benchmarks.quality.methods import CORE, GRIDS, METHODS, TUNED, method_of, rates_source
from benchmarks.quality.paired import half_width, paired_difference
from benchmarks.quality.runs import DIVERGED, Job
from benchmarks.quality.tasks import TASKS, Task, task_data
from tests.tiny import save_data


def test_a_constant_shift_is_told_from_zero_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    base = [rng.normal(0.4, 0.3, 500) for _ in range(3)]
    shifted = [values - 0.01 for values in base]
    difference = paired_difference(shifted, base)
    assert difference.mean == pytest.approx(-0.01)
    assert difference.low == pytest.approx(-0.01)
    assert difference.verdict == "better"
    assert difference.chance == 0
    assert difference.wide_high == pytest.approx(-0.01)
    noisy = [values + rng.normal(0, 0.3, 500) for values in base]
    assert paired_difference(noisy, base).verdict == "open"


def test_one_good_seed_of_two_is_no_finding() -> None:
    base = [np.zeros(400), np.zeros(400)]
    difference = paired_difference([np.full(400, -0.05), np.full(400, 0.02)], base)
    assert difference.mean == pytest.approx(-0.015)
    assert difference.low == pytest.approx(-0.05)
    assert difference.high == pytest.approx(0.02)
    assert difference.verdict == "open"


def test_two_seeds_that_agree_are_no_finding() -> None:
    base = [np.zeros(400)] * 2
    assert paired_difference([np.full(400, -0.05)] * 2, base).verdict == "open"
    assert paired_difference([np.full(400, -0.05)] * 3, [np.zeros(400)] * 3).verdict == "better"
    assert math.isinf(paired_difference([np.full(400, -0.05)], [np.zeros(400)]).wide_low)


def test_students_interval_by_hand() -> None:
    """Seed means 0, 1, 2 and no noise of rows: t of 2 degrees of freedom, 4.3027, times 1 / sqrt(3)."""
    table = np.repeat(np.array([[0.0], [1.0], [2.0]]), 50, axis=1)
    assert half_width(table) == pytest.approx(4.302653 / 3**0.5, rel=1e-6)


def test_students_interval_covers_the_truth_as_often_as_it_says() -> None:
    """With five seeds and noise of seeds alone, Student's holds the truth in 95 of 100 cases."""
    rng = np.random.default_rng(1)
    held = [
        half_width(np.repeat(shifts[:, None], 20, axis=1)) > abs(shifts.mean()) for shifts in rng.normal(size=(4000, 5))
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_endings_of_a_name_add_up_and_keep_the_rates_of_what_they_end() -> None:
    method = method_of("dynamic-no-gates-no-floor")
    assert method.fields == {"gates": "off", "min_rank": 0}
    assert method.label == "dynamic without gates, minimum rank 0"
    for name in ("dynamic-no-gates-no-floor", "random-no-floor", TUNED):
        assert rates_source(name) == TUNED
    assert rates_source("lora-ratio-no-floor") == "lora-ratio-no-floor", "what has a grid of its own"


def keep(
    folder: Path,
    method: str,
    seed: int,
    losses: list[int] | None,
    purpose: str = "report",
    lr: float = 1e-3,
    task: str = "sst2",
    rank: int = 1,
    **changed: Any,
) -> None:
    job = Job(purpose, task, method, rank, seed, lr)
    about = {"job": vars(job) | {"steps": job.full_steps}, "steps": job.full_steps}
    if losses is None:
        KeptRuns.below(folder).keep(job.file_name, about | DIVERGED)
        return
    made: dict[str, Any] = {
        **about,
        "metrics": {"loss": sum(losses) / len(losses) / 1000, "accuracy": 0.5},
        "parameters": {"active": 1, "budget": 1, "gate": 0},
        "loss": losses,
        "right": "10" * (len(losses) // 2),
        **changed,
    }
    KeptRuns.below(folder).keep(job.file_name, made)


def test_the_summary_pairs_shared_seeds_only(tmp_path: Path) -> None:
    for seed in (100, 101, 102):
        keep(tmp_path, "peft-lora", seed, [400, 500, 600, 700])
    for seed in (100, 101, 102, 103):
        keep(tmp_path, "dynamic", seed, [390, 490, 590, 690])
    (cell,) = tables.summary(KeptRuns.below(tmp_path))["cells"]
    assert [row["method"] for row in cell["methods"]] == ["peft-lora", "dynamic"]
    (row,) = [row for row in cell["differences"] if (row["method"], row["against"]) == ("dynamic", "peft-lora")]
    assert row["loss"]["seeds"] == 3
    assert row["loss"]["mean"] == pytest.approx(-0.01)
    assert row["verdict"] == "better"


def cell_of(method: str, steps: int = 0) -> Job:
    return Job("tune", "sst2", method, 1, 0, 0.0, steps=steps)


def test_a_rate_that_diverges_is_not_chosen(tmp_path: Path) -> None:
    assert tables.chosen_rate(KeptRuns.below(tmp_path), cell_of("lora")) is None
    keep(tmp_path, "lora", 0, None, "tune", 1e-3)
    for lr, loss in ((2e-3, 320), (4e-3, 300), (8e-3, 9000)):
        keep(tmp_path, "lora", 0, [loss] * 4, "tune", lr)
    keep(tmp_path, "dynamic", 0, [1] * 4, "tune", 2e-3)
    assert tables.chosen_rate(KeptRuns.below(tmp_path), cell_of("lora")) == 4e-3
    assert tables.chosen_rate(KeptRuns.below(tmp_path), cell_of("lora", steps=60)) is None, (
        "another length chooses for itself"
    )


def test_a_table_holds_runs_of_one_rate_and_says_which_diverged(tmp_path: Path) -> None:
    for seed in (100, 101, 102):
        keep(tmp_path, "lora", seed, [400, 500], lr=2e-3)
    keep(tmp_path, "lora", 100, [300, 400], lr=4e-3)
    keep(tmp_path, "dynamic", 100, [300, 400], lr=4e-3)
    keep(tmp_path, "dynamic", 101, None, lr=4e-3)

    def rows() -> dict[str, Any]:
        (cell,) = tables.summary(KeptRuns.below(tmp_path))["cells"]
        assert cell["diverged"] == {"dynamic": [101]}
        return {row["method"]: (row["lr"], len(row["seeds"])) for row in cell["methods"]}

    assert rows()["lora"] == (2e-3, 3), "nothing was tuned: the rate with the most runs"
    keep(tmp_path, "lora", 0, [300], "tune", 4e-3)
    assert rows() == {"lora": (4e-3, 1), "dynamic": (4e-3, 1)}


def test_a_task_judged_by_another_metric_shows_it(tmp_path: Path) -> None:
    for task in ("sst2", "cola"):
        metrics = {"loss": 0.5, "accuracy": 0.7, "matthews": 0.2}
        keep(tmp_path, "lora", 100, [500, 500], task=task, metrics=metrics)
    tables_by_task = {
        cell["task"]: list(quality_table(cell, ())) for cell in tables.summary(KeptRuns.below(tmp_path))["cells"]
    }
    assert tables_by_task["sst2"][0] == "| method | learning rate | seeds | held-out loss | accuracy |"
    assert tables_by_task["cola"][0] == "| method | learning rate | seeds | held-out loss | accuracy | matthews |"
    assert tables_by_task["cola"][2] == "| LoRA | 0.001 | 1 | 0.5000 | 70.0 % | 0.200 |"


def test_the_table_of_all_methods_has_a_row_a_method_against_lora(tmp_path: Path) -> None:
    for seed in (100, 101, 102):
        keep(tmp_path, "lora", seed, [400, 500])
        keep(tmp_path, "sora", seed, [390, 490])
        keep(tmp_path, "eva", seed, [390, 490])
    cost = {
        "step_over_lora": 1.25,
        "sum_over_lora": 1.5,
        "before_s": 0.5,
        "after_s": 1.0,
        "peak_over_lora_mib": 12.0,
        "allocated": 1234.0,
    }
    figures = {"cells": tables.summary(KeptRuns.below(tmp_path))["cells"], "costs": {"lora": cost, "sora": cost}}
    header, _, best, last = methods_table(figures)
    assert header.count("|") == best.count("|") == last.count("|")
    assert best.startswith("| SoRA (code) | 0.001 | 0.4400 | 50.0 % | **−0.0100 [")
    assert best.endswith("| 1 | 1,234 | 1.25 | 1.50 | +1.5 | +12 |")
    assert last.startswith("| LoRA |"), "eva was not timed and has no row"


def test_a_table_can_end_at_a_seed_and_leaves_the_written_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (100, 101, 102, 103):
        keep(tmp_path, "lora", seed, [400, 500])
    monkeypatch.setattr(quality, "KEPT", KeptRuns.below(tmp_path))
    words = ["quality", "table", "--tasks", "sst2", "--ranks", "1", "--from-seed", "101", "--to-seed", "102"]
    monkeypatch.setattr("sys.argv", words)
    quality.main()
    output = capsys.readouterr().out
    assert "| LoRA | 0.001 | 2 | 0.4500 |" in output
    assert "written" not in output


def test_a_table_can_be_cut_to_the_methods_that_are_asked_for(tmp_path: Path) -> None:
    for name in ("lora", "sora", "eva"):
        for seed in (100, 101):
            keep(tmp_path, name, seed, [400, 500])
    keep(tmp_path, "eva", 102, None)
    (cell,) = tables.summary(KeptRuns.below(tmp_path))["cells"]
    cut = tables.among(cell, ["lora", "sora"])
    assert [row["method"] for row in cut["methods"]] == ["lora", "sora"]
    assert {row["method"] for row in cut["differences"]} <= {"lora", "sora"}
    assert cut["differences"]
    assert cell["diverged"]
    assert not cut["diverged"]


def test_every_method_can_be_named_and_finds_a_rate() -> None:
    assert set(CORE) <= set(METHODS)
    for name, method in METHODS.items():
        assert rates_source(rates_source(name)) == rates_source(name)
        assert method.engine in ("dynlora", "peft")
    names = {
        Job(purpose, task, method, rank, 0, lr).file_name
        for purpose in ("tune", "report")
        for task in TASKS
        for method in METHODS
        for rank in GRIDS
        for lr in (1e-3, 2e-3)
    }
    assert len({Job("report", "sst2", "lora", 1, 0, 1e-3, steps=steps).file_name for steps in (0, 300, 60)}) == 2
    assert len(names) == 4 * len(TASKS) * len(METHODS) * len(GRIDS)


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
        return tables.rate_beyond(KeptRuns.below(tmp_path), cell_of("dynamic"))

    assert beyond() is None, "nothing was tuned"
    for lr, loss in ((2e-3, 500), (4e-3, 400), (8e-3, 300)):
        keep(tmp_path, "dynamic", round(lr * 1e6), [loss, loss], "tune", lr)
    assert beyond() == pytest.approx(16e-3)
    keep(tmp_path, "dynamic", 1, [350, 350], "tune", 16e-3)
    assert beyond() is None, "the best lies inside now"
    keep(tmp_path, "dynamic", 2, [200, 200], "tune", 1e-3)
    assert beyond() is None, "enough rates were tried"
