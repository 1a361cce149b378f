"""A run folder is hostile input: every attack ends in an error of ours or in what is right."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dynlora.errors import ConfigError, CorruptRunError, RunNotFoundError
from dynlora.store import catalogue, queries, schema
from dynlora.store.reader import RunReader
from dynlora.store.run import open_run
from dynlora.store.schema import check_run_id, new_run_id, run_folder
from dynlora.store.writer import RunWriter
from tests.store.builder import finished_run

STEPS = 90


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("original"), STEPS)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / original.name))


def change(folder: Path, *statements: str) -> None:
    connection = sqlite3.connect(folder / "run.db")
    connection.execute("PRAGMA writable_schema=ON")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "bad", ["", "..", ".", ".trash", "a/b", "a\\b", "-a", "a\0", "a\n", "é", "a" * 65, "CON", "nul"]
)
def test_an_id_cannot_name_another_place(bad: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        run_folder(tmp_path, bad)


def test_fresh_ids_are_valid_and_sort_by_time() -> None:
    first, second = new_run_id(1e9), new_run_id(1e9 + 1)
    assert check_run_id(first) < check_run_id(second)
    assert first != new_run_id(1e9)


def test_links_are_not_followed(original: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "linked").symlink_to(original, target_is_directory=True)
    inside = runs / "inside"
    inside.mkdir()
    (inside / "run.db").symlink_to(original / "run.db")
    with pytest.raises(CorruptRunError, match="link"):
        run_folder(runs, "linked")
    with pytest.raises(CorruptRunError, match="not a regular file"):
        run_folder(runs, "inside")
    with pytest.raises(CorruptRunError):
        RunReader(inside)
    assert set(queries.list_runs(runs)["status"]) == {"corrupt"}
    with pytest.raises(RunNotFoundError):
        run_folder(runs, "nothing")
    (tmp_path / "link").symlink_to(runs, target_is_directory=True)
    assert run_folder(tmp_path / "link", "new", must_exist=False) == runs / "new"


@pytest.mark.parametrize("name", ["run.db-wal", "run.db-journal", ".lock"])
def test_links_beside_the_database_are_not_followed(folder: Path, name: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("keep")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    with pytest.raises(CorruptRunError, match="link"):
        RunWriter.open(folder, resume_from=None)
    assert target.read_text() == "keep"


def test_a_database_that_is_a_pipe_does_not_block(folder: Path) -> None:
    (folder / "run.db").unlink()
    os.mkfifo(folder / "run.db")
    with pytest.raises(CorruptRunError, match="not a regular file"):
        RunReader(folder)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER UPDATE ON status BEGIN DELETE FROM meta; END",
        "CREATE VIEW v AS SELECT * FROM meta",
        "CREATE VIRTUAL TABLE t USING fts5(x)",
        "CREATE TABLE extra (x)",
        "CREATE INDEX i ON meta (abs(value))",
        "DROP TABLE logs",
        "ALTER TABLE logs ADD COLUMN x GENERATED ALWAYS AS (hex(zeroblob(100000000)))",
        "UPDATE sqlite_master SET sql = replace(sql, 'value TEXT', 'value BLOB') WHERE name = 'meta'",
    ],
)
def test_a_schema_that_is_not_ours_is_refused(folder: Path, statement: str) -> None:
    change(folder, statement)
    with pytest.raises(CorruptRunError, match=r"did not write|cannot be"):
        RunReader(folder)
    with pytest.raises(CorruptRunError, match=r"did not write|cannot be"):
        RunWriter.open(folder, resume_from=0)


def test_a_schema_that_is_no_text_is_refused(folder: Path) -> None:
    """A flipped bit in a table's name left the reader with a UnicodeDecodeError."""
    whole = (folder / "run.db").read_bytes()
    assert whole.count(b"CREATE TABLE")
    for place in range(0, len(whole) - 12):
        if whole[place : place + 12] == b"CREATE TABLE":
            (folder / "run.db").write_bytes(whole[: place + 13] + b"\xf8" + whole[place + 14 :])
            with pytest.raises(CorruptRunError):
                RunReader(folder)


def test_a_run_of_a_newer_version_is_refused_in_a_sentence(folder: Path) -> None:
    change(folder, f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(CorruptRunError, match="newer dynlora.*update"):
        RunReader(folder)
    change(folder, "PRAGMA user_version = 0")
    with pytest.raises(CorruptRunError, match="did not write it"):
        RunReader(folder)


CELLS: list[tuple[str, Callable[[RunReader], object]]] = [
    ("UPDATE vectors SET data = zeroblob(60000000) WHERE step = 3", lambda r: r.signal("importance")),
    ("UPDATE vectors SET data = 'abcdefabcdef' WHERE step = 3", lambda r: r.signal("importance")),
    ("UPDATE vectors SET step = 1000 WHERE step = 3", lambda r: r.signal("importance")),
    ("UPDATE rollups SET low = zeroblob(4)", lambda r: r.bins("importance", 4)),
    ("UPDATE rollups SET last_step = last_step + 1", lambda r: r.bins("importance", 4)),
    ("UPDATE signals SET width = 1e15", lambda r: r.signals()),
    ("UPDATE signals SET width = -1", lambda r: r.signals()),
    ("UPDATE signals SET axis = 'x'", lambda r: r.signals()),
    ("UPDATE signals SET name = replace(hex(zeroblob(10000)), '0', '=') WHERE id = 1", lambda r: r.signals()),
    ("UPDATE meta SET value = replace(hex(zeroblob(50000)), '00', '[')", lambda r: r.meta()),
    ("UPDATE meta SET value = replace(hex(zeroblob(3000000)), '00', '1 ')", lambda r: r.meta()),
    ("UPDATE meta SET value = '{' WHERE key = 'config'", lambda r: r.meta()),
    ("UPDATE meta SET value = zeroblob(9) WHERE key = 'config'", lambda r: r.meta()),
    ("UPDATE meta SET value = CAST(x'ff' AS TEXT)", lambda r: r.meta()),
    ("UPDATE events SET payload = '[1]'", lambda r: r.events()),
    ("UPDATE events SET modules = '[\"a\"]'", lambda r: r.events()),
    ("UPDATE events SET step = 'x'", lambda r: r.events()),
    ("UPDATE events SET step = step + 1 WHERE seq = 2", lambda r: r.events()),
    ("UPDATE events SET time = time + 1", lambda r: r.events()),
    ("UPDATE events SET kind = 'reallocatf'", lambda r: r.events()),
    ("UPDATE events SET modules = '[0,3]'", lambda r: r.events()),
    ("UPDATE events SET payload = replace(payload, '96', '97')", lambda r: r.events()),
    ("UPDATE scalars SET value = value + 1e-9 WHERE step = 20", lambda r: r.scalars()),
    ("UPDATE scalars SET value = NULL WHERE step = 20", lambda r: r.scalars("loss")),
    ("UPDATE scalars SET step = 1000 WHERE step = 20", lambda r: r.scalars()),
    ("UPDATE scalars SET name = 'loss2' WHERE name = 'loss'", lambda r: r.scalars("loss2")),
    ("UPDATE scalars SET value = value + 1 WHERE step = 90", lambda r: r.last_scalars("loss", "train", 5)),
    ("UPDATE scalars SET value = x'00'", lambda r: r.scalars()),
    ("UPDATE scalars SET value = 'x'", lambda r: r.scalars()),
    ("UPDATE modules SET d_in = x'00'", lambda r: r.modules()),
    ("UPDATE modules SET layer = 'x'", lambda r: r.modules()),
    ("DELETE FROM modules WHERE position = 1", lambda r: r.modules()),
    ("UPDATE examples SET x = 'far'", lambda r: r.examples()),
    ("UPDATE status SET state = 'dancing'", lambda r: r.status()),
    ("UPDATE status SET step = 'x'", lambda r: r.status()),
    ("UPDATE status SET state = 'running', pid = 'x'", lambda r: r.status()),
    ("UPDATE status SET state = 'running', pid = 1e300", lambda r: r.status()),
    ("DELETE FROM status", lambda r: r.status()),
    ("DELETE FROM status", lambda r: r.version_key()),
]


@pytest.mark.parametrize(("statement", "read"), CELLS, ids=[cell[0][:60] for cell in CELLS])
def test_a_cell_that_cannot_be_is_refused(folder: Path, statement: str, read: Callable[[RunReader], object]) -> None:
    change(folder, statement)
    with RunReader(folder) as reader, pytest.raises(CorruptRunError):
        read(reader)
    assert len(catalogue.run_rows(folder.parent)) == 1


def test_deep_json_is_refused_both_ways(folder: Path) -> None:
    with pytest.raises(ValueError, match="nested deeper"):
        RunWriter.annotate(folder, meta={"deep": json.loads("[" * 40 + "]" * 40)})
    deep = "[" * 40 + "]" * 40
    change(folder, f"INSERT INTO meta VALUES ('deep', '{deep}')")
    with RunReader(folder) as reader, pytest.raises(CorruptRunError):
        reader.meta()


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", os.urandom(5000), b"SQLite format 3\0" + bytes(5000)])
def test_garbage_is_refused(folder: Path, content: bytes) -> None:
    (folder / "run.db").write_bytes(content)
    with pytest.raises(CorruptRunError):
        open_run(folder)
    row = queries.list_runs(folder.parent).iloc[0]
    assert row["status"] == "corrupt"
    assert row["reason"]
