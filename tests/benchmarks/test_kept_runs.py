"""Finished runs in one file: what goes in comes out, loose or packed, and the tables of the documents print from it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from benchmarks import planted
from benchmarks.kept_runs import KeptRuns
from benchmarks.quality.runs import DIVERGED, Job
from dynlora.training import run as training_run

RUN = {
    "job": vars(Job("report", "sst2", "lora", 4, 100, 1e-3)),
    "steps": 300,
    "precision": "bf16",
    "made_with": {"processor": "x", "torch": "2"},
    "metrics": {"loss": 0.25, "accuracy": 0.75},
    "parameters": {"budget": 3, "active": 2, "gate": 1},
    "train_s": 1.5,
    "ranks": [1, 2, 3],
    "loss": [100, 400],
    "right": "10",
}


def test_a_packed_run_is_what_was_kept(tmp_path: Path) -> None:
    kept = KeptRuns.below(tmp_path)
    runs = {"report-a.json": RUN, "report-b.json": {**RUN, **DIVERGED}, "tune-a.json": {"job": RUN["job"], "steps": 3}}
    for name, made in runs.items():
        kept.keep(name, made)
    loose = {name: kept[name] for name in runs}
    kept.pack()
    assert loose == runs == {name: kept[name] for name in runs}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.parquet"]
    assert kept.finished("report") == [runs["report-a.json"], runs["report-b.json"]]
    kept.keep("report-c.json", RUN)
    assert len(kept.finished("report")) == 3
    kept.pack()
    assert "report-c.json" in kept
    assert "report-d.json" not in kept


def test_what_no_column_keeps_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    kept = KeptRuns.below(tmp_path)
    kept.keep("report-a.json", {**RUN, "mood": "good"})
    with pytest.raises(ValueError, match="nothing keeps mood"):
        kept.pack()
    assert kept["report-a.json"]["mood"] == "good"


def test_a_run_that_is_stopped_is_no_diverged_one_and_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = training_run.build_trainer

    def stopped(*of: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return build(*of)

    monkeypatch.setattr(training_run, "build_trainer", stopped)
    kept, job = KeptRuns.below(tmp_path), ("half", "lora", 1, 0.01)
    with pytest.raises(SystemExit, match="stopped; start the command again"):
        planted.trained(kept, True, job)
    assert planted.file_name(job) not in kept
