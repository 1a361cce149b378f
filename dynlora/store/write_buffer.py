"""Rows on their way into `run.db`: kept in memory, written in one transaction, kept on when that fails."""

from __future__ import annotations

import sqlite3
from typing import Any

_MAX_PENDING_BYTES = 128 * 2**20


class Pending:
    """Rows by statement, in the order the statements were first used."""

    def __init__(self) -> None:
        """Start empty."""
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._bytes = 0
        self.dropped = 0

    def __bool__(self) -> bool:
        """Tell whether any row waits."""
        return bool(self._rows)

    def add(self, statement: str, row: tuple[Any, ...], size: int = 64) -> None:
        """Keep one row of about `size` bytes; past 128 MiB (a disk that stays full) it is counted and dropped."""
        self._bytes += size
        if self._bytes > _MAX_PENDING_BYTES:
            self._bytes -= size
            self.dropped += 1
            return
        rows = self._rows.get(statement)
        if rows is None:
            rows = self._rows[statement] = []
        rows.append(row)

    def write(self, connection: sqlite3.Connection, last: tuple[str, tuple[Any, ...]]) -> None:
        """Write all rows and the statement `last` in one transaction; on an error nothing is written or lost.

        Raises:
            sqlite3.Error: when the transaction failed; the rows are still here.
        """
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in self._rows.items():
                connection.executemany(statement, rows)
            connection.execute(*last)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._rows.clear()
        self._bytes = 0

    def give_up(self) -> int:
        """Forget all rows and return how many were lost, those that were dropped before included."""
        self.dropped += sum(map(len, self._rows.values()))
        self._rows.clear()
        self._bytes = 0
        return self.dropped
