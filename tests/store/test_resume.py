"""Roll-ups sum up exactly, and a resumed run holds what an unbroken one holds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from dynlora.store import series
from dynlora.store.reader import RunReader
from dynlora.store.schema import LEVELS
from dynlora.store.writer import RunWriter
from tests.store.builder import WIDTH, define, finished_run, new_run, record, values


def tables(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(folder / "run.db")
    queries = {
        "vectors": "SELECT * FROM vectors ORDER BY 1, 2",
        "scalars": "SELECT * FROM scalars ORDER BY 1, 2, 3",
        "rollups": "SELECT * FROM rollups ORDER BY 1, 2, 3, 4",
        "events": "SELECT step, kind, modules, payload FROM events ORDER BY seq",
        "modules": "SELECT * FROM modules",
        "signals": "SELECT * FROM signals",
        "metrics": "SELECT value FROM meta WHERE key = 'metrics'",
    }
    rows = {name: connection.execute(query).fetchall() for name, query in queries.items()}
    connection.close()
    return rows


@pytest.mark.parametrize("checkpoint", [0, 1, 15, 16, 17, 64, 255, 256, 257, 300])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, checkpoint: int) -> None:
    whole = finished_run(tmp_path / "whole", 330)
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 310)
    with RunWriter.open(folder, resume_from=checkpoint) as writer:
        with RunReader(folder) as reader:
            assert reader.status().status == "running"
            assert reader.last_step() == checkpoint
            assert reader.signal("importance")[0].tolist() == list(range(1, checkpoint + 1))
        define(writer)
        record(writer, checkpoint + 1, 330)
        writer.finish("finished")
    assert tables(folder) == tables(whole)


def test_starting_over_deletes_what_was_recorded(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 30)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.define_signal("importance", "module", "", 7)
        writer.finish("finished")
    with RunReader(folder) as reader:
        assert reader.scalars() == []
        assert reader.events() == []
        assert reader.signals()["importance"].width == 7
        assert reader.meta(["metrics"]) == {"metrics": {}}


def test_events_get_new_numbers_after_a_resume(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 50)
    with RunReader(folder) as reader:
        seen, key = reader.events()[-1].seq, reader.version_key()
    with RunWriter.open(folder, resume_from=20) as writer:
        record(writer, 21, 30)
        writer.finish("finished")
    with RunReader(folder) as reader:
        assert [event.step for event in reader.events(after_seq=seen)] == [30]
        assert reader.version_key() != key


def test_an_opening_that_fails_leaves_the_run_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 30)
    before = tables(folder)
    monkeypatch.setattr("dynlora.store.writer.this_process", lambda: (object(), 0, "x"))
    with pytest.raises(Exception, match="type 'object' is not supported|cannot be written"):
        RunWriter.open(folder, resume_from=5)
    monkeypatch.undo()
    assert tables(folder) == before
    RunWriter.open(folder, resume_from=30).close()


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = new_run(tmp_path_factory.mktemp("long"))
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.define_signal("importance", "module", "", WIDTH)
        for step in range(1, 5001):
            writer.vector("importance", step, np.nan if step == 77 else values(step)) if step != 77 else writer.vector(
                "importance", step, [np.nan, 1, 2]
            )
            writer.scalar("loss", "train", step, np.sin(step))
        writer.finish("finished")
    return folder


@pytest.mark.parametrize(("bins", "start", "stop"), [(400, None, None), (7, 100, 4900), (50, 17, 1030), (1, 3, 5)])
def test_bins_hold_least_greatest_and_last(long_run: Path, bins: int, start: int | None, stop: int | None) -> None:
    with RunReader(long_run) as reader:
        bins_of_signal = reader.bins("importance", bins, start, stop)
        steps, rows = reader.signal("importance", start, stop)
    assert 0 < len(bins_of_signal.count) <= bins
    assert bins_of_signal.points == len(steps)
    assert bins_of_signal.first_step[0] == steps[0]
    assert bins_of_signal.last_step[-1] == steps[-1]
    for first, last, low, high, end in zip(
        bins_of_signal.first_step,
        bins_of_signal.last_step,
        bins_of_signal.low,
        bins_of_signal.high,
        bins_of_signal.last,
        strict=True,
    ):
        inside = rows[(steps >= first) & (steps <= last)]
        np.testing.assert_array_equal(low, np.fmin.reduce(inside))
        np.testing.assert_array_equal(high, np.fmax.reduce(inside))
        np.testing.assert_array_equal(end, inside[-1])


def test_points_keep_every_peak_and_are_the_same_each_time(long_run: Path) -> None:
    with RunReader(long_run) as reader:
        steps, rows = reader.signal("importance", max_points=300)
        again = reader.signal("importance", max_points=300)
        whole = reader.signal("importance")[1]
        (loss,) = reader.scalars("loss", "train", max_points=30)
        exact = reader.signal("importance", 10, 60, max_points=50)
    assert len(steps) <= 300
    assert (np.diff(steps) > 0).all()
    np.testing.assert_array_equal(np.nanmax(rows, 0), np.nanmax(whole, 0))
    np.testing.assert_array_equal(np.nanmin(rows, 0), np.nanmin(whole, 0))
    np.testing.assert_array_equal(rows, again[1])
    np.testing.assert_array_equal(rows[-1], whole[-1])
    assert exact[0].tolist() == list(range(10, 60))
    assert len(loss.steps) <= 30
    assert loss.points == 5000


def test_a_long_run_is_opened_through_its_roll_ups(long_run: Path) -> None:
    connection = sqlite3.connect(long_run / "run.db")
    levels = dict(connection.execute("SELECT level, count(*) FROM rollups WHERE name = 'importance' GROUP BY level"))
    connection.close()
    assert levels == {level: 5000 // level for level in LEVELS}
    read: list[int] = []

    def counting(*arguments: object) -> series._Piece:
        piece = rows(*arguments)  # type: ignore[arg-type]
        read.append(len(piece.first))
        return piece

    rows = series._rows
    with pytest.MonkeyPatch.context() as patch, RunReader(long_run) as reader:
        patch.setattr(series, "_rows", counting)
        reader.bins("importance", 100)
    assert sum(read) < 16


def test_an_empty_signal_has_no_bins(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        writer.finish("finished")
    with RunReader(folder) as reader:
        assert reader.bins("importance", 10).high.shape == (0, WIDTH)
        assert reader.signal("importance")[1].shape == (0, WIDTH)
        assert reader.signal("importance", max_points=10)[1].shape == (0, WIDTH)
        assert reader.last_vector("importance") is None
