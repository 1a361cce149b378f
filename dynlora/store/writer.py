"""`RunWriter`: the one process that writes a run takes it over, records into it, ends it and lets go of it."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from pathlib import Path
from types import TracebackType

from filelock import BaseFileLock

from dynlora.store import jsontext, schema
from dynlora.store.connection import LET_GO_S, lock_run, open_writer, switch_journal, unwritable
from dynlora.store.lifecycle import annotate, create_run, mark_active, unmark_active
from dynlora.store.process import now, this_process
from dynlora.store.reader import RunReader
from dynlora.store.recorder import ACTIVITY, COMMIT_EVERY_S, Recording
from dynlora.store.resume import truncate

logger = logging.getLogger(__name__)


class RunWriter(Recording):
    """Writes one run; made by `open`, used by one process, safe to call from several of its threads."""

    create = staticmethod(create_run)
    annotate = staticmethod(annotate)

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: BaseFileLock) -> None:
        """Take over an open connection and a held lock; use `RunWriter.open`."""
        super().__init__(folder, connection)
        self._lock = lock

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, resume_from: int | None) -> RunWriter:
        """Take a run over for training: lock it, cut it back to the checkpoint, set it running; one transaction.

        Args:
            folder: folder of the run.
            resume_from: step of the checkpoint training continues from: rows of later steps are deleted. None when
                there is no checkpoint: all that was recorded is deleted, the run starts over.

        Raises:
            RunNotFoundError: when there is no such run.
            RunBusyError: when another process writes it.
            CorruptRunError: when it cannot be read or written.
        """
        folder = Path(os.path.realpath(folder))
        with RunReader(folder) as reader:
            ending = not reader.status().is_running
        lock = lock_run(folder, LET_GO_S if ending else 0.0)
        connection: sqlite3.Connection | None = None
        try:
            connection = open_writer(folder)
            switch_journal(connection, "wal", 5.0)
            mark_active(folder.parent, folder.name)
            _take_over(connection, resume_from)
            writer = cls(folder, connection, lock)
        except sqlite3.Error as error:
            _let_go(connection, lock)
            raise unwritable(folder, error) from None
        except BaseException:
            _let_go(connection, lock)
            raise
        threading.Thread(target=writer._flush_leftovers, name="dynlora-store", daemon=True).start()
        return writer

    def finish(self, state: str, error: str | None = None) -> None:
        """End the run: store its state, leave a single file that a read-only folder can serve, let go of it.

        Args:
            state: finished, failed or stopped.
            error: one sentence when it failed.

        Raises:
            ValueError: when the state is none of these.
        """
        if state not in schema.FINAL_STATES:
            raise ValueError(f"final state {state!r} of a run: use one of {', '.join(schema.FINAL_STATES)}")
        with self._guard:
            if self._closed.is_set():
                return
            text = error and jsontext.clip(error, 20_000)
            self._activity = None
            if self._has_activity:
                self._add("DELETE FROM meta WHERE key = ?", (ACTIVITY,))
            self._add("UPDATE status SET state = ?, error = ?", (state, text))
            self._try_commit(durable=True)
            if self._failure is not None:
                self._store_only_state(state, text)
            elif self._pending:
                self._try_commit(durable=True)
            self._end(over=self._failure is None)

    def close(self) -> None:
        """Let go of the run without ending it: it counts as interrupted until it is resumed."""
        with self._guard:
            if self._closed.is_set():
                return
            self._add("UPDATE status SET pid = ?, process_start = ?", (None, None))
            self._try_commit(durable=True)
            self._end(over=False)

    def __enter__(self) -> RunWriter:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; an exception that nobody turned into a state ends the run as failed, an interrupt as stopped."""
        if isinstance(error, Exception):
            self.finish("failed", f"{type(error).__name__}: {error}")
        elif error is not None:
            self.finish("stopped")
        self.close()

    def _end(self, *, over: bool) -> None:
        self._closed.set()
        try:
            settled = over and switch_journal(self._connection, "delete", 3.0)
        except sqlite3.Error as error:
            logger.warning("run %s: %s", self.folder.name, error)
            settled = False
        _let_go(self._connection, self._lock)
        if settled:
            unmark_active(self.folder.parent, self.folder.name)

    def _store_only_state(self, state: str, error: str | None) -> None:
        """Store the end alone, and with it what the disk did not take; a warning too, where there is room for one."""
        lost = f"{self._pending.give_up():,} rows of the record were lost ({self._failure})"
        self._add("UPDATE status SET state = ?, error = ?", (state, lost if error is None else f"{error}; {lost}"))
        self._try_commit(durable=True)
        if self._failure is None:
            self._try_commit(durable=True)
            self._failure = None

    def _flush_leftovers(self) -> None:
        """Commit rows that wait while no step completes, so that readers are at most a second behind."""
        while not self._closed.wait(COMMIT_EVERY_S / 2):
            with self._guard:
                since = self._dirty_since
                waited = since is not None and time.monotonic() - since >= COMMIT_EVERY_S
                if waited and not self._closed.is_set() and time.monotonic() >= self._next_try:
                    self._try_commit()


def _take_over(connection: sqlite3.Connection, resume_from: int | None) -> None:
    me = this_process()
    connection.execute("BEGIN IMMEDIATE")
    truncate(connection, resume_from)
    connection.execute(
        "UPDATE status SET state = 'running', step = ?, heartbeat = ?, pid = ?, process_start = ?, host = ?, "
        "error = NULL, opened = opened + 1",
        (resume_from or 0, now(), *me),
    )
    connection.execute("DELETE FROM meta WHERE key IN ('resume', 'activity')")
    connection.execute("COMMIT")


def _let_go(connection: sqlite3.Connection | None, lock: BaseFileLock) -> None:
    if connection is not None:
        connection.close()
    lock.release()
