"""Files of trackers may come from anybody: links, pipes, damage and code in them end in a sentence, or are left out."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from dynlora.cli.main import main
from dynlora.errors import DataError
from dynlora.integrations.tracker_files import sqlite_file
from dynlora.integrations.tracker_files import tensorboard as event_files
from dynlora.integrations.tracker_files import tracker_run as limits
from dynlora.integrations.tracker_files.import_runs import import_run
from dynlora.integrations.tracker_files.mlflow import mlflow_runs
from dynlora.integrations.tracker_files.tensorboard import tensorboard_runs
from dynlora.integrations.tracker_files.trackio import trackio_runs
from dynlora.integrations.trackers.event_messages import Event, Summary
from dynlora.store import queries

METRICS = "CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_id TEXT, timestamp TEXT, run_name TEXT, step, metrics)"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
EVENTS = "events.out.tfevents.1.here"


def framed(*events: bytes) -> bytes:
    """Return records as an event file holds them."""
    return b"".join(
        (head := struct.pack("<Q", len(event)))
        + struct.pack("<I", masked_crc32c(head))
        + event
        + struct.pack("<I", masked_crc32c(event))
        for event in events
    )


def number(tag: str, step: int, value: float) -> bytes:
    return Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])).SerializeToString()


def trackio_file(path: Path, *rows: tuple[object, object], statement: str = METRICS) -> Path:
    """Write a database with rows of (step, metrics)."""
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
        for step, metrics in rows:
            text = metrics if isinstance(metrics, str | bytes) else json.dumps(metrics)
            connection.execute("INSERT INTO metrics VALUES (NULL, 'r', 'now', 'mine', ?, ?)", (step, text))
    connection.close()
    return path


def refused(*arguments: str) -> str:
    """Return the sentence with which an import is refused."""
    done = CliRunner().invoke(main, ["import", *arguments, "--runs-dir", "nowhere"])
    assert done.exit_code == 2, done.stdout
    assert done.stderr.count("\n") == 1
    assert not Path("nowhere").exists()
    return done.stderr


@pytest.mark.parametrize("tracker", ["trackio", "mlflow"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("no database"), "not an SQLite database"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + os.urandom(4096)), "cannot be read"),
        (lambda path: path.symlink_to("/etc/passwd"), "link"),
        (lambda path: os.mkfifo(path), "no regular file"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE other (a)").connection.close(), "has no table"),
    ],
    ids=["text", "noise", "link", "pipe", "other tables"],
)
def test_what_is_no_database_of_a_tracker_is_a_sentence(
    tracker: str, make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "a.db")
    assert message in refused(tracker, str(tmp_path / "a.db"))


def test_a_missing_file_project_or_experiment_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert "neither a file nor a project" in refused("trackio", "no-such-project")
    assert "none.db: No such file or directory; check the path" in refused("mlflow", str(tmp_path / "none.db"))
    assert "no event files of TensorBoard" in refused("tensorboard", str(tmp_path))
    trackio_file(tmp_path / "my-project.db", (1, {"loss": 1}))
    runs = tmp_path / "runs"
    assert CliRunner().invoke(main, ["import", "trackio", "my-project", "--runs-dir", str(runs)]).exit_code == 0
    assert len(queries.list_runs(runs)) == 1


def test_views_and_virtual_tables_are_no_tables(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "view.db") as connection:
        connection.execute(f"CREATE VIEW metrics AS {ENDLESS}")
    connection.close()
    with pytest.raises(DataError, match="no table metrics"):
        trackio_runs(tmp_path / "view.db")
    trackio_file(tmp_path / "virtual.db", statement="CREATE VIRTUAL TABLE metrics USING fts5(run_id, step, numbers)")
    with pytest.raises(DataError, match="no table metrics"):
        trackio_runs(tmp_path / "virtual.db")


def test_a_file_that_is_made_to_be_read_for_ever_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "PATIENCE_S", 0.1)
    path = trackio_file(tmp_path / "a.db", *((step, {}) for step in range(1000)))
    with (
        sqlite_file.SqliteFile(path, ("metrics",), "Trackio") as file,
        pytest.raises(DataError, match="takes too long"),
    ):
        list(file.rows(f"SELECT count(*) FROM {', '.join(f'metrics AS m{n}' for n in range(9))}"))


@pytest.mark.parametrize(
    "query",
    ["SELECT load_extension('x')", "ATTACH 'other.db' AS o", "DELETE FROM metrics", "SELECT readfile('/etc/passwd')"],
)
def test_only_reading_is_allowed(query: str, tmp_path: Path) -> None:
    path = trackio_file(tmp_path / "a.db", (1, {"loss": 1}))
    with sqlite_file.SqliteFile(path, ("metrics",), "Trackio") as file, pytest.raises(DataError):
        list(file.rows(query))
    assert len(trackio_runs(path)) == 1


def test_nothing_is_made_beside_a_file_and_its_log_is_read(tmp_path: Path) -> None:
    path = trackio_file(tmp_path / "a.db", (1, {"loss": 1}))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("INSERT INTO metrics VALUES (NULL, 'r', 'now', 'mine', 2, '{\"loss\": 2}')")
    [run] = trackio_runs(path)
    assert run.series == {"loss": {1: 1.0, 2: 2.0}}
    connection.close()
    before = sorted(tmp_path.iterdir())
    trackio_runs(path)
    assert sorted(tmp_path.iterdir()) == before == [path]


def test_values_of_any_kind_become_numbers_or_nothing(tmp_path: Path, runs_dir: Path) -> None:
    rows = [
        (1, {"a": "NaN", "b": "Infinity", "c": True, "d": "text", "e": {"_type": "trackio.image"}, "f": 10**400}),
        (-1, {"a": 1}),
        ("two", {"a": 1}),
        (2**63 - 1, {"a": 1}),
        (None, {"a": 1}),
        (2, "[1]"),
        (3, "{"),
        (4, "[" * 9999),
        (5, b"\xff\xfe"),
        (6, {"x" * 5000: 1.0, "\x1b[31m\n": 2.0, "": 3.0}),
    ]
    [run] = trackio_runs(trackio_file(tmp_path / "a.db", *rows))
    assert repr(run.series["a"]) == "{1: nan}"
    assert run.series["b"] == run.series["f"] == {1: float("inf")}
    assert {"c", "d", "e"}.isdisjoint(run.series)
    assert all(len(name) <= limits.LONGEST_NAME and name.isprintable() for name in run.series)
    row = import_run(run, runs_dir)
    assert any("without a step" in note for note in row.notes)
    assert len(queries.scalars_frame(runs_dir / row.id)) == 6


def test_an_old_database_of_trackio_is_read(tmp_path: Path) -> None:
    statement = (
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
    )
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute(statement)
        connection.execute("CREATE TABLE configs (id INTEGER PRIMARY KEY, run_name TEXT, config TEXT, created_at TEXT)")
        connection.execute(
            "INSERT INTO metrics VALUES (1, '2026-01-02T03:04:05+00:00', 'mine', 7, '{\"train/loss\": 0.5}')"
        )
        connection.execute("INSERT INTO configs VALUES (1, 'mine', '{\"seed\": 4, \"_Username\": \"me\"}', 'now')")
    connection.close()
    [run] = trackio_runs(tmp_path / "a.db")
    assert (run.name, run.series, run.params) == ("mine", {"train/loss": {7: 0.5}}, {"seed": 4})
    assert run.created == 1767323045


MLFLOW = """
CREATE TABLE experiments (experiment_id INTEGER, name TEXT);
CREATE TABLE runs (run_uuid TEXT, name TEXT, status TEXT, start_time INTEGER, experiment_id INTEGER,
                   lifecycle_stage TEXT);
CREATE TABLE metrics (key TEXT, value REAL, timestamp INTEGER, run_uuid TEXT, step INTEGER, is_nan BOOLEAN);
CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);
CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
"""
"""Tables of an MLflow database that are read."""


def test_mlflow_keeps_the_last_value_of_a_step_and_skips_deleted_runs(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.executescript(f"""
            {MLFLOW}
            INSERT INTO experiments VALUES (0, 'Default'), (1, 'mine');
            INSERT INTO runs VALUES ('a', 'one', 'RUNNING', 1000, 1, 'active'),
                                    ('b', 'two', 'FAILED', 2000, 0, 'active'),
                                    ('c', 'three', 'FINISHED', 3000, 1, 'deleted');
            INSERT INTO metrics VALUES ('loss', 2, 20, 'a', 1, 0), ('loss', 1, 10, 'a', 1, 0),
                                       ('loss', 0, 30, 'a', 2, 1);
            INSERT INTO params VALUES ('lr', '0.5', 'a'), ('batch_size', 'None', 'a');
        """)
    connection.close()
    first, second = mlflow_runs(tmp_path / "a.db", None)
    assert (first.name, first.status, first.created, second.status) == ("one", "stopped", 1.0, "failed")
    assert repr(first.series) == "{'loss': {1: 2.0, 2: nan}}"
    assert [run.key for run in mlflow_runs(tmp_path / "a.db", "mine")] == ["a"]


def test_links_pipes_and_damage_among_event_files_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    whole = framed(number("loss", 1, 0.5), number("loss", 2, 0.25))
    (folder / f"{EVENTS}.0").write_bytes(whole)
    (folder / f"{EVENTS}.1").write_bytes(whole[: len(whole) - 3])
    (folder / f"{EVENTS}.2").write_bytes(framed(number("other", 1, 1.0)) + b"\0" * 40)
    (folder / f"{EVENTS}.3").write_bytes(framed(b"\xff" * 9))
    (folder / f"{EVENTS}.4").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / f"{EVENTS}.5")
    (tmp_path / "beyond").mkdir()
    (tmp_path / "beyond" / EVENTS).write_bytes(whole)
    (folder / "link").symlink_to(tmp_path / "beyond", target_is_directory=True)
    [run] = tensorboard_runs(folder)
    assert run.series == {"loss": {1: 0.5, 2: 0.25}, "other": {1: 1.0}}
    assert [note.split(" ")[0] for note in run.notes] == [f"{EVENTS}.{number}" for number in (2, 3, 4, 5)]


def spoiled(content: bytes) -> bytes:
    """Return event files whose last checksum is another's."""
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("kind", ["garbage", "checksum", "pipe"])
def test_damage_is_said_also_where_nothing_is_left_to_import(kind: str, tmp_path: Path) -> None:
    """It was passed over without a word, as if there were no runs."""
    folder = tmp_path / "logs"
    folder.mkdir()
    if kind == "pipe":
        os.mkfifo(folder / EVENTS)
    else:
        content = {"garbage": b"\xff" * 4096, "checksum": spoiled(framed(number("loss", 1, 0.5)))}[kind]
        (folder / EVENTS).write_bytes(content)
    message = refused("tensorboard", str(folder))
    assert "nothing was imported; logs: " in message
    assert f"{EVENTS} is " in message
    whole = folder / "run"
    whole.mkdir()
    (whole / EVENTS).write_bytes(framed(number("loss", 1, 0.5)))
    result = CliRunner().invoke(main, ["import", "tensorboard", str(folder), "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 0
    assert f"logs: {EVENTS} is " in result.output


def test_a_run_without_one_number_is_no_empty_run(tmp_path: Path) -> None:
    """Values of odd types made an empty run of 1970."""
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.executescript(f"""
            {MLFLOW}
            INSERT INTO runs VALUES ('a', 'one', 'FINISHED', 'long ago', 0, 'active');
            INSERT INTO metrics VALUES ('loss', 'low', 10, 'a', 'first', 0);
        """)
    connection.close()
    assert "nothing was imported; one: has no numbers and is left out" in refused("mlflow", str(tmp_path / "a.db"))


def test_a_record_that_says_it_is_huge_is_damage(tmp_path: Path) -> None:
    head = struct.pack("<Q", 2**62)
    (tmp_path / EVENTS).write_bytes(framed(number("loss", 1, 1.0)) + head + struct.pack("<I", masked_crc32c(head)))
    [run] = tensorboard_runs(tmp_path)
    assert run.series == {"loss": {1: 1.0}}
    assert "is damaged" in run.notes[0]


@settings(max_examples=60)
@given(noise=st.binary(max_size=200), place=st.integers(0, 400), length=st.integers(0, 40))
def test_damaged_event_files_never_raise(
    noise: bytes, place: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    whole = framed(*(number(f"train/{name}", step, 0.5) for name in ("loss", "lr") for step in range(4)))
    place %= len(whole)
    (folder / EVENTS).write_bytes(whole[:place] + noise + whole[place + length :])
    for run in tensorboard_runs(folder):
        assert all(value == 0.5 for name in ("train/loss", "train/lr") for value in run.series.get(name, {}).values())


def test_what_would_fill_the_memory_is_passed_over(tmp_path: Path) -> None:
    """A tensor of one number that says it has 2^40, and a record of nothing but empty values."""
    value = Summary.Value(tag="loss")
    value.metadata.plugin_data.plugin_name = "scalars"
    value.tensor.dtype = 1  # a float
    value.tensor.float_val.append(1.0)
    value.tensor.tensor_shape.dim.add(size=2**40)
    huge = Event(step=1, summary=Summary(value=[value]))
    empty = b"\x2a" + varint(2 * 2**22) + b"\x0a\x00" * 2**22  # a summary of 4 million values
    (tmp_path / EVENTS).write_bytes(framed(huge.SerializeToString(), empty, number("loss", 2, 0.5)))
    tracemalloc.start()
    try:
        [run] = tensorboard_runs(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    assert (run.series, run.notes) == ({"loss": {2: 0.5}}, [])


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    return bytes([value % 128 + 128]) + varint(value // 128) if value > 127 else bytes([value])


def test_event_files_that_take_too_long_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / EVENTS).write_bytes(framed(*(number("loss", step, 1.0) for step in range(9))))
    monkeypatch.setattr(event_files, "PATIENCE_S", -1.0)
    runs = list(tensorboard_runs(tmp_path))
    assert [run.series for run in runs] == [{"loss": {0: 1.0}}] * 2
    assert all("the rest is left out" in run.notes[0] for run in runs)
    monkeypatch.setattr(event_files, "MOST_S", -1.0)
    with pytest.raises(DataError, match="takes longer than"):
        list(tensorboard_runs(tmp_path))


def test_a_run_has_no_more_names_and_numbers_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SERIES", 3)
    monkeypatch.setattr(limits, "MAX_VALUES", 5)
    monkeypatch.setattr(event_files, "MAX_FILE_BYTES", 10_000)
    (tmp_path / EVENTS).write_bytes(framed(*(number(f"m{step % 7}", step, 1.0) for step in range(40))))
    [run] = tensorboard_runs(tmp_path)
    assert sum(map(len, run.series.values())) == 5
    assert len(run.series) == 3
    assert len(run.notes) == 2
