"""A database that another program made, opened read-only: tables alone are read, briefly, and nothing in it is run."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from dynlora.errors import DataError, system_message
from dynlora.safe_files import NotPlainFileError, open_plain
from dynlora.text import printable

MAX_BYTES = 16 * 2**30
"""Largest file that is opened."""

MAX_CELL_BYTES = 8 * 2**20
"""Largest text or blob of a row."""

PATIENCE_S = 120.0
"""Longest time of one query: a file may be made to be read for ever."""

_HEADER = b"SQLite format 3\x00"
_INSTRUCTIONS = 100_000
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_PRAGMA)


class SqliteFile:
    """An open database; use it in a `with` block."""

    def __init__(self, path: Path, tables: Sequence[str], what: str) -> None:
        """Open a database that has some tables.

        Args:
            path: the file.
            tables: names of the tables that it must have, as tables and not as views.
            what: whose file it is, such as MLflow.

        Raises:
            DataError: one sentence, when it is none, is a link, is too large, or lacks a table.
        """
        self.path, self._what = path, what
        address = path.absolute().as_uri() + "?mode=ro" + _without_wal(path, self._check())
        try:
            self._connection = sqlite3.connect(address, uri=True, timeout=5.0, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unreadable(error) from None
        try:
            self._distrust()
            self._check_tables(tables)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> SqliteFile:
        """Return the open database."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._connection.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query.

        Raises:
            DataError: when the file cannot be read, or the query takes too long.
        """
        self._deadline = time.monotonic() + PATIENCE_S
        try:
            yield from self._connection.execute(query, values)
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            raise self._unreadable(error) from None

    def columns(self, table: str) -> set[str]:
        """Return the names of a table's columns."""
        return {str(row[1]) for row in self.rows(f"PRAGMA table_info({table})")}

    def _check(self) -> bytes:
        """Return the header of the file, which must be a plain one of an SQLite database."""
        try:
            file, size = open_plain(self.path)
            with file:
                head = file.read(100)
        except NotPlainFileError:
            raise DataError(f"{self.path}: it is a link, a folder or no regular file; give the file itself") from None
        except (OSError, ValueError) as error:
            is_system = isinstance(error, OSError)
            raise DataError(system_message(error, str(self.path)) if is_system else f"{self.path}: {error}") from None
        if len(head) < 100 or not head.startswith(_HEADER):
            raise DataError(f"{self.path}: it is not an SQLite database; give a file of {self._what}")
        if size > MAX_BYTES:
            raise DataError(f"{self.path}: it has {size:,} bytes, more than the {MAX_BYTES:,} that are read")
        for suffix in ("-wal", "-shm", "-journal"):
            beside = self.path.with_name(self.path.name + suffix)
            if os.path.lexists(beside) and not stat.S_ISREG(os.lstat(beside).st_mode):
                raise DataError(f"{beside}: it is not a regular file; remove it")
        return head

    def _distrust(self) -> None:
        connection = self._connection
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self._deadline = time.monotonic() + PATIENCE_S
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cell_size_check=ON")
            connection.execute("PRAGMA query_only=ON")
        except sqlite3.Error as error:
            raise self._unreadable(error) from None
        connection.set_progress_handler(lambda: time.monotonic() > self._deadline, _INSTRUCTIONS)
        connection.set_authorizer(_only_reads)

    def _check_tables(self, tables: Sequence[str]) -> None:
        """Refuse a file that lacks a table, or has a view or a virtual table of its name, which would run its code."""
        statements = {
            str(row[0]): str(row[1]) for row in self.rows("SELECT name, sql FROM sqlite_master WHERE type='table'")
        }
        for name in tables:
            statement = statements.get(name)
            if statement is None or statement.lstrip().upper().startswith("CREATE VIRTUAL"):
                raise DataError(f"{self.path}: it has no table {name}; give a file of {self._what}")

    def _unreadable(self, error: Exception) -> DataError:
        reason = "it takes too long" if "interrupted" in str(error) else printable(error, 120)
        return DataError(f"{self.path}: it cannot be read ({reason}); give a file of {self._what}")


def _without_wal(path: Path, head: bytes) -> str:
    """Return what opens a file without its log where that is empty: then nothing is made beside the file.

    Raises:
        DataError: when the log holds something, and the folder is read-only.
    """
    if head[18] != 2 and head[19] != 2:
        return ""
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or not log.stat().st_size:
        return "&immutable=1"
    if os.access(path.parent, os.W_OK):
        return ""
    raise DataError(f"{path}: its last changes are in {log.name}, and its folder is read-only; copy both elsewhere")


def _only_reads(action: int, first: str | None, second: str | None, database: str | None, source: str | None) -> int:
    """Allow what reads tables; a function only where SQLite has it itself and it reads nothing else."""
    if action in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and second in ("count", "max", "min", "typeof")):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY
