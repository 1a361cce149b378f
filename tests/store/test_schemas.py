"""Runs written by each earlier schema still open; the folder `runs` keeps one of each."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynlora.errors import CorruptRunError
from dynlora.store import queries, schema
from dynlora.store.run import open_run
from dynlora.store.summary import run_summary
from dynlora.store.writer import RunWriter

RUNS = Path(__file__).parent / "runs"


@pytest.mark.parametrize("name", sorted(path.name for path in RUNS.iterdir()))
def test_run_of_an_earlier_schema_opens(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(RUNS / name, folder)
    before = sorted(path.name for path in folder.iterdir())
    summary = run_summary(folder)
    assert (summary.status, summary.step, summary.max_steps) == ("finished", 20, 20)
    assert summary.strategy == "dynamic"
    assert set(summary.metrics) >= {"loss", "accuracy"}
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


def changed(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "run.db")) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_run_of_version_1_goes_on_as_one_of_today(tmp_path: Path) -> None:
    """Its rows have no checksums and are read as they are; what is added has them."""
    folder = Path(shutil.copytree(RUNS / "schema-1", tmp_path / "one"))
    before = queries.scalars_frame(folder), queries.events_frame(folder)
    with RunWriter.open(folder, resume_from=20) as writer:
        writer.scalar("loss", "train", 21, 0.5)
        writer.event(21, "evaluate", [], {"a": 1})
        writer.progress(21)
        writer.finish("finished")
    with closing(sqlite3.connect(folder / "run.db")) as connection:
        assert schema.check_schema(connection, folder.name) == schema.VERSION
    after = queries.scalars_frame(folder), queries.events_frame(folder)
    assert len(after[0]) == len(before[0]) + 1
    assert len(after[1]) == len(before[1]) + 1
    kept = pd.DataFrame(after[0][after[0]["step"] < 21]).reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before[0])
    changed(folder, "UPDATE scalars SET value = 0.25 WHERE step = 21")
    with pytest.raises(CorruptRunError, match="a value of scalar 'loss' is damaged"):
        queries.scalars_frame(folder)
