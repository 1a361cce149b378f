"""How `run.db` is opened: by one writer under a lock, or by any number of readers that trust nothing in it."""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from dynlora.errors import CorruptRunError, DynloraError, RunBusyError, StorageError, system_error, system_reason
from dynlora.store import schema

_BUSY_S = 5.0
_HEADER = b"SQLite format 3\x00"
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")
"""How a journal ends that belongs to a transaction over several databases: before it is the name of a file."""


LET_GO_S = 5.0
"""How long a writer that has stored its end may take to let go of the lock, seconds."""


def lock_run(folder: Path, wait_s: float = 0.0) -> BaseFileLock:
    """Take the writer's lock of a run and return it.

    Args:
        folder: folder of the run.
        wait_s: seconds to wait for it: readers see the end of a run a moment before its writer lets go.

    Raises:
        RunBusyError: when another process, or another writer here, holds it.
        CorruptRunError: when the lock file is a link or no plain file.
        StorageError: when it cannot be made.
    """
    path = folder / schema.LOCK_NAME
    return take_lock(
        path,
        wait_s,
        link=f"run {folder.name}: {path.name} is a link; dynlora does not follow links",
        busy=f"run {folder.name} is being written by another process; stop it first",
    )


def take_lock(path: Path, wait_s: float, *, link: str, busy: str) -> FileLock:
    """Take a lock file and return it; a link is never followed.

    Args:
        path: the lock file.
        wait_s: seconds to wait for it.
        link: what to say when it is a link.
        busy: what to say when somebody else holds it all that time.

    Raises:
        RunBusyError: when another process holds it.
        CorruptRunError: when the file is a link or no plain file.
        StorageError: when there is none and none can be made.
    """
    if path.is_symlink():
        raise CorruptRunError(link)
    if path.exists() and not path.is_file():
        raise CorruptRunError(f"{path} is not a regular file and cannot be used as a lock; remove it")
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise RunBusyError(busy) from None
    except (OSError, NotImplementedError) as error:  # the latter where a file system knows no locks
        reason = system_reason(error) if isinstance(error, OSError) else "its file system does not support locks"
        raise StorageError(f"{path} cannot be locked: {reason}") from None
    return lock


def header(path: Path) -> bytes:
    """Return the first 100 bytes of a database after checking its size and its first bytes.

    Raises:
        CorruptRunError: when the file is too short, too large or no SQLite database.
    """
    return header_and_version(path)[0]


def header_and_version(path: Path) -> tuple[bytes, str]:
    """Return a database's header and what tells this state of the file from every other, while nobody writes it.

    Outside WAL mode every write raises SQLite's change counter in the header, and the file's time.

    Raises:
        CorruptRunError: when the file is too short, too large or no SQLite database.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(descriptor)
            head = os.read(descriptor, 100)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CorruptRunError(f"run {path.parent.name}: run.db cannot be read ({error.strerror})") from None
    if len(head) < 100 or not head.startswith(_HEADER):
        raise CorruptRunError(f"run {path.parent.name}: run.db is not a SQLite database")
    if status.st_size > schema.MAX_DB_BYTES:
        raise CorruptRunError(f"run {path.parent.name}: run.db has {status.st_size} bytes, over the limit of dynlora")
    return head, f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{zlib.crc32(head)}"


def is_wal(head: bytes) -> bool:
    """Read in a header whether the database is in WAL mode, as it is while a run is written."""
    return head[18] == 2 or head[19] == 2


def open_writer(folder: Path) -> sqlite3.Connection:
    """Open an existing run for writing, brought to the newest version; the caller holds the lock.

    Raises:
        CorruptRunError: when it holds no run of ours.
    """
    path = schema.database(folder)
    header(path)
    connection = _open_rw(path)
    try:
        _distrust(connection)
        if schema.check_schema(connection, folder.name) < schema.VERSION:
            connection.execute("BEGIN IMMEDIATE")
            schema.migrate(connection)
            connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.Error as error:
        connection.close()
        raise CorruptRunError(f"run {folder.name}: run.db cannot be opened ({error})") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _open_rw(path: Path) -> sqlite3.Connection:
    """Open a database for writing, which takes back what a killed writer left half done.

    Raises:
        CorruptRunError: when its journal names another file: taking it back would delete that one.
    """
    journal = path.with_name(f"{path.name}-journal")
    if journal.is_file():
        with journal.open("rb") as file:
            file.seek(max(0, journal.stat().st_size - len(_NAMES_ANOTHER)))
            if file.read() == _NAMES_ANOTHER:
                raise CorruptRunError(
                    f"run {path.parent.name}: {journal.name} refers to another file and is not from dynlora"
                )
    return sqlite3.connect(
        path.absolute().as_uri() + "?mode=rw", uri=True, timeout=1.0, isolation_level=None, check_same_thread=False
    )


def open_reader(folder: Path) -> sqlite3.Connection:
    """Open a run read-only and check its schema; no file is made beside a finished run.

    A writer that was killed in the moment it left WAL mode leaves a journal that has to be taken back before anything
    can be read. That is done once, under the writer's lock.

    Raises:
        RunNotFoundError: when the folder holds no run.
        CorruptRunError: when it holds something else, or a run of a newer dynlora.
        RunBusyError: when the file stays locked for five seconds.
    """
    try:
        return _open_ro(folder)
    except _HalfDone:
        _take_back(folder)
    try:
        return _open_ro(folder)
    except _HalfDone as error:
        raise unreadable(folder, error) from None


class _HalfDone(Exception):
    """A killed writer left a journal."""


def _take_back(folder: Path) -> None:
    """Undo what a killed writer left half done."""
    with lock_run(folder):
        connection: sqlite3.Connection | None = None
        try:
            connection = _open_rw(schema.database(folder))
            _distrust(connection)
            connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            raise unreadable(folder, error) from None
        finally:
            if connection is not None:
                connection.close()


def _open_ro(folder: Path) -> sqlite3.Connection:
    """Open a run read-only as it is there, see `open_reader`.

    Raises:
        RunNotFoundError: when the folder holds no run.
        CorruptRunError: when it holds something else, or a run of a newer dynlora.
        RunBusyError: when the file stays locked for five seconds.
    """
    path = schema.database(folder)
    head = header(path)
    uri = path.absolute().as_uri() + "?mode=ro"
    if is_wal(head) and not os.access(folder, os.W_OK):
        uri += _without_wal(path)
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        _distrust(connection)
        connection.execute("PRAGMA query_only=ON")
        schema.check_schema(connection, folder.name)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK" and os.access(folder, os.W_OK):
            raise _HalfDone(str(error)) from None
        raise unreadable(folder, error) from None
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def unreadable(folder: Path, error: Exception) -> CorruptRunError | RunBusyError:
    """Return the error of ours that says what an SQLite error means for this run."""
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return RunBusyError(f"run {folder.name}: run.db was locked for {_BUSY_S:.0f} s; try again")
    return CorruptRunError(f"run {folder.name}: run.db cannot be read ({error})")


def unwritable(folder: Path, error: Exception) -> DynloraError:
    """Return the error to raise where a run's database cannot be written: the disk refuses it, or it is damaged."""
    what, refused = f"run {folder.name}: run.db cannot be written", system_error(error)
    return (
        CorruptRunError(f"{what} ({error})") if refused is None else StorageError(f"{what}: {system_reason(refused)}")
    )


def switch_journal(connection: sqlite3.Connection, mode: str, patience_s: float) -> bool:
    """Switch between `wal` and `delete`; False when a reader held the file for all of `patience_s` seconds."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            journal = str(connection.execute(f"PRAGMA journal_mode={mode}").fetchone()[0])
            if journal.lower() == mode:
                return True
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def _without_wal(path: Path) -> str:
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        raise CorruptRunError(
            f"run {path.parent.name} was interrupted and is in a read-only folder; copy the folder to read it"
        )
    return "&immutable=1"


def _distrust(connection: sqlite3.Connection) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, schema.MAX_CELL_BYTES + 1024)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
