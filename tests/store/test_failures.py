"""Recording never breaks training: what the disk refuses is a warning, and is tried again."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from dynlora.errors import CorruptRunError, DynloraError, StorageError
from dynlora.store import writer as store_writer
from dynlora.store.connection import lock_run, open_reader, unwritable
from dynlora.store.lifecycle import annotate
from dynlora.store.notes import annotate_notes
from dynlora.store.reader import RunReader
from dynlora.store.writer import RunWriter
from tests.store.builder import define, finished_run, new_run, record


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunWriter:
    monkeypatch.setattr(store_writer, "_RETRY_AFTER_S", 0.0)
    monkeypatch.setattr(store_writer, "COMMIT_EVERY_S", 0.0)
    return RunWriter.open(new_run(tmp_path), resume_from=None)


def fill_disk(writer: RunWriter) -> None:
    (pages,) = writer._connection.execute("PRAGMA page_count").fetchone()
    writer._connection.execute(f"PRAGMA max_page_count = {pages}")


def free_disk(writer: RunWriter) -> None:
    writer._connection.execute("PRAGMA max_page_count = 1000000")


def test_a_full_disk_is_a_warning_and_nothing_is_lost(writer: RunWriter) -> None:
    define(writer)
    record(writer, 1, 5)
    fill_disk(writer)
    record(writer, 6, 600)
    assert len(writer.warnings) == 1
    assert "full" in writer.warnings[0]
    with pytest.raises(OSError, match="the record cannot be written"):
        writer.commit(durable=True)
    free_disk(writer)
    record(writer, 601, 602)
    writer.commit(durable=True)
    writer.finish("finished")
    with RunReader(writer.folder) as reader:
        assert reader.signal("importance")[0].tolist() == list(range(1, 603))
        assert reader.scalars("loss")[0].points == 602
        (warning,) = reader.events(kinds=["warning"])
        assert "continues now" in warning.payload["message"]


def test_a_disk_that_stays_full_costs_rows_but_not_the_end(writer: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_writer, "_MAX_PENDING_BYTES", 20_000)
    define(writer)
    record(writer, 1, 5)
    fill_disk(writer)
    record(writer, 6, 900)
    assert writer._pending.dropped
    writer.finish("finished")
    with RunReader(writer.folder) as reader:
        assert reader.status().status == "finished"
        assert reader.status().step == 900


def test_rows_that_were_lost_at_the_end_are_said(writer: RunWriter) -> None:
    """A run whose last rows never reached the disk ended as finished, and nothing said so."""
    define(writer)
    record(writer, 1, 5)
    fill_disk(writer)
    record(writer, 6, 400)
    waiting = sum(map(len, writer._pending._rows.values())) + 1  # and the state itself
    writer.finish("finished")
    with RunReader(writer.folder) as reader:
        status = reader.status()
        assert (status.status, status.step) == ("finished", 400)
        assert status.error == f"{waiting:,} rows of the record were lost (database or disk is full)"
    assert not list(writer.folder.glob("run.db-*"))


def test_rows_that_were_lost_are_said_beside_what_a_run_failed_of(writer: RunWriter) -> None:
    define(writer)
    record(writer, 1, 5)
    fill_disk(writer)
    record(writer, 6, 400)
    writer.finish("failed", "out of memory")
    with RunReader(writer.folder) as reader:
        assert (reader.status().error or "").startswith("out of memory; ")
        assert "rows of the record were lost" in (reader.status().error or "")


def test_a_warning_waits_for_the_commit_of_another_thread(writer: RunWriter) -> None:
    """It was added to rows that the flushing thread was writing: "dictionary changed size during iteration"."""
    done = threading.Event()
    with writer._guard:
        thread = threading.Thread(target=lambda: (writer.warn("odd"), done.set()))
        thread.start()
        assert not done.wait(0.3)
        assert not writer.warnings
    thread.join()
    writer.finish("finished")
    with RunReader(writer.folder) as reader:
        assert [event.payload["message"] for event in reader.events(kinds=["warning"])] == ["odd"]


@pytest.mark.parametrize("name", [".lock", ".notes.lock"])
def test_a_lock_that_is_a_folder_is_a_sentence(name: str, tmp_path: Path) -> None:
    """It let an IsADirectoryError out."""
    folder = finished_run(tmp_path, 3)
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with pytest.raises(CorruptRunError, match="is not a regular file.*remove it"):
        annotate(folder) if name == ".lock" else annotate_notes(folder, add=["a"])
    if name == ".lock":
        with pytest.raises(CorruptRunError, match="is not a regular file"):
            RunWriter.open(folder, resume_from=None)


def test_a_lock_that_cannot_be_made_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    with pytest.raises(StorageError, match=r"\.lock cannot be locked: Permission denied; check the permissions"):
        lock_run(tmp_path)


def test_a_reader_in_the_way_of_the_end_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynlora.store.writer.switch_journal", lambda *_: False)
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 3)
        writer.finish("finished")
    with RunReader(folder) as reader:
        assert reader.status().status == "finished"
    assert [path.name for path in (tmp_path / ".active").iterdir()] == [folder.name]
    annotate(folder)
    assert list((tmp_path / ".active").iterdir()) == []
    assert not list(folder.glob("run.db-*"))


def test_an_interrupted_run_in_a_read_only_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 3)
        writer.commit()
        monkeypatch.setattr("dynlora.store.connection.os.access", lambda *_: False)
        with pytest.raises(DynloraError, match="copy the folder"):
            open_reader(folder)
        monkeypatch.undo()
    connection = sqlite3.connect(folder / "run.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    monkeypatch.setattr("dynlora.store.connection.os.access", lambda *_: False)
    with RunReader(folder) as reader:
        assert reader.last_step() == 3
    assert not list(folder.glob("run.db-*"))


def test_a_run_is_taken_over_while_its_last_writer_lets_go(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    RunWriter.open(folder, resume_from=None).finish("stopped")
    lock = lock_run(folder)
    threading.Timer(0.2, lock.release).start()
    annotate(folder, state="queued")
    lock = lock_run(folder)
    threading.Timer(0.2, lock.release).start()
    RunWriter.open(folder, resume_from=None).close()


def left_half_done(runs_dir: Path, tmp_path: Path) -> Path:
    """Return a copy of a finished run, made while a transaction had begun to write the database."""
    folder = finished_run(runs_dir)
    connection = sqlite3.connect(folder / "run.db", isolation_level=None)
    connection.execute("PRAGMA cache_size=1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE status SET state = 'running', step = 7")
    connection.execute(
        "UPDATE vectors SET data = zeroblob(length(data))"
    )  # more than the cache holds: pages are written
    copy = tmp_path / "copies" / folder.name
    shutil.copytree(folder, copy)
    connection.execute("ROLLBACK")
    connection.close()
    assert (copy / "run.db-journal").stat().st_size > 0
    return copy


def test_a_run_whose_writer_was_killed_in_its_last_transaction_is_read_as_it_was_before(tmp_path: Path) -> None:
    copy = left_half_done(tmp_path / "runs", tmp_path)
    with RunReader(copy) as reader, RunReader(tmp_path / "runs" / copy.name) as whole:
        assert reader.status().state == "finished"
        assert np.array_equal(reader.signal("importance")[1], whole.signal("importance")[1])
    assert not (copy / "run.db-journal").exists()


def test_a_journal_that_names_another_file_is_refused_and_that_file_stays(tmp_path: Path) -> None:
    copy = left_half_done(tmp_path / "runs", tmp_path)
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    name = str(precious).encode()
    journal = copy / "run.db-journal"
    tail = (
        len(name).to_bytes(4, "big") + (sum(name) & 0xFFFFFFFF).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    )
    journal.write_bytes(journal.read_bytes() + (1).to_bytes(4, "big") + name + tail)
    with pytest.raises(CorruptRunError, match="refers to another file"):
        RunReader(copy)
    with pytest.raises(CorruptRunError, match="refers to another file"):
        RunWriter.open(copy, resume_from=None)
    assert precious.read_text() == "mine"


def test_a_full_disk_and_a_damaged_store_are_refused_with_what_to_do(tmp_path: Path) -> None:
    """`resume` on a full disk said `database or disk is full`, and no remedy."""
    full, damaged = sqlite3.OperationalError("database or disk is full"), sqlite3.DatabaseError("malformed")
    full.sqlite_errorcode, damaged.sqlite_errorcode = sqlite3.SQLITE_FULL, sqlite3.SQLITE_CORRUPT
    refused = unwritable(tmp_path / "a", full)
    assert isinstance(refused, StorageError)
    assert str(refused).startswith("run a: run.db cannot be written: No space left on device; free some space")
    assert isinstance(unwritable(tmp_path / "a", damaged), CorruptRunError)
