"""What a writer records is what a reader reads."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dynlora.errors import ConfigError, RunBusyError, RunNotFoundError
from dynlora.store import writer as store_writer
from dynlora.store.reader import RunReader
from dynlora.store.series import old_zero_crc
from dynlora.store.writer import RunWriter
from tests.store.builder import WIDTH, define, finished_run, new_run, record, values


def test_a_run_reads_back_as_it_was_recorded(tmp_path: Path) -> None:
    folder = finished_run(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "config.yaml", "run.db", "train.log"]
    with RunReader(folder) as reader:
        steps, read = reader.signal("importance")
        np.testing.assert_array_equal(steps, np.arange(1, 41))
        np.testing.assert_array_equal(read, [values(step) for step in range(1, 41)])
        assert reader.signal("importance", 5, 8)[0].tolist() == [5, 6, 7]
        assert reader.status().status == "finished"
        assert reader.last_step() == 40
        assert [row.layer for row in reader.modules()] == [0, 1, 2]
        assert reader.groups() == ["short", "long"]
        assert [(row.text, row.x, row.y, row.text_pair) for row in reader.examples()][2] == ("text 2", 2.0, -2.0, None)
        assert [row.step for row in reader.events(kinds=["reallocate"])] == [10, 20, 30, 40]
        assert reader.events(after_seq=3)[0].step == 40
        assert reader.events()[0].modules == [0, 2]
        assert reader.meta()["metrics"] == {"accuracy": 0.04}
        assert reader.signals()["rank"].unit == "components"
        assert [(row.name, row.split, row.points) for row in reader.scalars()] == [
            ("accuracy", "validation", 4),
            ("loss", "train", 40),
        ]
        with pytest.raises(KeyError, match="has no signal 'delta'"):
            reader.signal("delta")


@settings(deadline=None, max_examples=25)
@given(
    npst.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 5)), elements=st.floats(width=32)),
    st.lists(st.floats(), min_size=1, max_size=40),
)
def test_every_float_survives(vectors: np.ndarray, scalars: list[float]) -> None:
    with tempfile.TemporaryDirectory() as runs_dir:
        folder = new_run(Path(runs_dir))
        with RunWriter.open(folder, resume_from=None) as writer:
            writer.define_signal("s", "module", "", vectors.shape[1])
            for step, vector in enumerate(vectors):
                writer.vector("s", step, vector)
            for step, value in enumerate(scalars):
                writer.scalar("x", "train", step, value)
            writer.finish("finished")
        with RunReader(folder) as reader:
            assert reader.signal("s")[1].tobytes() == vectors.tobytes()
            np.testing.assert_array_equal(reader.scalars()[0].values, scalars)


@pytest.mark.parametrize("of_before", [False, True])
def test_minus_zero_is_no_damage(of_before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite keeps -0.0 as 0.0; earlier versions took the checksum of -0.0, so that their runs read as damaged."""
    folder = new_run(tmp_path)
    if of_before:
        monkeypatch.setattr(store_writer, "scalar_crc", lambda seed, step, value: old_zero_crc(seed, step))
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.scalar("x", "train", 1, -0.0)
        writer.finish("finished")
    with RunReader(folder) as reader:
        assert reader.scalars()[0].values.tolist() == [0.0]


def test_payloads_take_numpy_and_write_what_json_lacks_as_null(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.event(1, "note", np.array([1]), {"a": np.float32(0.5), "b": math.nan, "c": np.arange(2), "d": "\ud800"})
        writer.system({"rss_mib": 3.0})
        writer.log("info", "hello")
        writer.set_meta("best", {"step": 3})
        writer.update_max_steps(7)
        writer.finish("stopped")
    with RunReader(folder) as reader:
        assert reader.events()[0].payload == {"a": 0.5, "b": None, "c": [0, 1], "d": "?"}
        assert [row.message for row in reader.logs()] == ["hello"]
        assert reader.system()[0].values.tolist() == [3.0]
        assert reader.meta()["best"] == {"step": 3}
        assert reader.status().max_steps == 7


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        with pytest.raises(ValueError, match="takes 3 values per step, not 2"):
            writer.vector("importance", 1, [1, 2])
        with pytest.raises(ValueError, match="is not defined"):
            writer.vector("gate", 1, [1])
        with pytest.raises(ValueError, match="already has it with width 3"):
            writer.define_signal("importance", "module", "", 4)
        with pytest.raises(ValueError, match="axis 'layer'"):
            writer.define_signal("x", "layer", "", 4)
        with pytest.raises(ValueError, match="final state 'done'"):
            writer.finish("done")
        with pytest.raises(TypeError):
            writer.event(1, "note", [], {"a": object()})


def test_a_second_value_for_a_step_is_dropped_and_said(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 3)
        writer.vector("importance", 3, np.zeros(WIDTH))
        writer.scalar("loss", "train", 2, 9.0)
        assert len(writer.warnings) == 2
        writer.finish("finished")
    with RunReader(folder) as reader:
        np.testing.assert_array_equal(reader.signal("importance")[1][-1], values(3))
        assert "came after step 3" in reader.events(kinds=["warning"])[0].payload["message"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None), pytest.raises(RunBusyError, match="another process"):
        RunWriter.open(folder, resume_from=None)
    RunWriter.open(folder, resume_from=None).close()


def test_a_folder_is_made_completely_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        RunWriter.create(tmp_path, config_yaml="", meta={"bad": object()}, max_steps=1)
    with pytest.raises(ConfigError, match="state 'done'"):
        RunWriter.create(tmp_path, config_yaml="", meta={}, max_steps=1, state="done")
    assert [path.name for path in tmp_path.iterdir() if path.name != ".active"] == []
    folder = new_run(tmp_path, "one")
    with pytest.raises(ConfigError, match="exists already"):
        new_run(tmp_path, "one")
    assert [path.name for path in tmp_path.iterdir() if path.name != ".active"] == [folder.name]


def test_an_exception_ends_the_run_as_failed(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with pytest.raises(ZeroDivisionError), RunWriter.open(folder, resume_from=None):
        raise ZeroDivisionError("no batch")
    with RunReader(folder) as reader:
        assert (reader.status().status, reader.status().error) == ("failed", "ZeroDivisionError: no batch")


def test_a_run_is_annotated_after_it_ended(tmp_path: Path) -> None:
    folder = finished_run(tmp_path)
    with RunReader(folder) as reader:
        before = reader.version_key()
    RunWriter.annotate(folder, meta={"export": {"gap": 0.1}}, events=[(40, "export", {"gap": 0.1})])
    with RunReader(folder) as reader:
        assert reader.version_key() != before
        assert reader.status().status == "finished"
        assert reader.meta(["export"]) == {"export": {"gap": 0.1}}
    assert not (folder / "run.db-wal").exists()


def test_reading_a_finished_run_leaves_no_file(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "a#b?c d%20e")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with RunReader(folder) as reader:
        reader.signal("importance", max_points=9)
        reader.events()
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_missing_run_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="dynlora runs"):
        RunReader(tmp_path / "nothing")
    with pytest.raises(RunNotFoundError):
        RunWriter.open(tmp_path / "nothing", resume_from=None)
