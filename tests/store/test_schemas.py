"""Runs written by each earlier schema still open; the folder `runs` keeps one of each."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dynlora.store import queries
from dynlora.store.run import open_run
from dynlora.store.summary import run_summary

RUNS = Path(__file__).parent / "runs"


@pytest.mark.parametrize("name", sorted(path.name for path in RUNS.iterdir()))
def test_run_of_an_earlier_schema_opens(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(RUNS / name, folder)
    before = sorted(path.name for path in folder.iterdir())
    summary = run_summary(folder)
    assert (summary["status"], summary["step"], summary["max_steps"]) == ("finished", 20, 20)
    assert summary["strategy"] == "dynamic"
    assert set(summary["metrics"]) >= {"loss", "accuracy"}
    run = open_run(folder)
    assert len(run.modules) == 12
    rank = run.signal("rank")
    assert list(rank["step"]) == list(range(21))
    assert np.isfinite(rank.to_numpy()).all()
    assert len(run.events()) >= 3
    assert not queries.rank_moves(folder).empty
    assert not queries.gates_by_group(folder).empty
    assert len(run.examples()) == len(queries.examples_frame(folder))
    assert sorted(path.name for path in folder.iterdir()) == before
