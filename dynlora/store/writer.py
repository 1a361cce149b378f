"""What a run records, from calls to rows to commits, and `RunWriter`, the one process that writes a run."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import BaseFileLock
from numpy.typing import ArrayLike

from dynlora.store import jsontext, schema
from dynlora.store.connection import LET_GO_S, lock_run, open_writer, switch_journal, unwritable
from dynlora.store.lifecycle import (
    ADD_EVENT,
    SET_META,
    annotate,
    create_run,
    event_row,
    mark_active,
    now,
    this_process,
    unmark_active,
)
from dynlora.store.reader import RunReader
from dynlora.store.rows import ModuleRow
from dynlora.store.series import (
    Bucket,
    SeriesState,
    bucket_crc,
    last_values,
    restored,
    scalar_crc,
    scalar_names,
    series_seed,
    truncate,
    vector_crc,
)

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


COMMIT_EVERY_S = 0.5
LOOK_EVERY_S = COMMIT_EVERY_S / 2
ACTIVITY = "activity"
"""Key of the meta table with what a running run does now; it goes when the run ends or is taken over."""

METRICS_SPLIT = "validation"
"""The split whose scalars at the latest step are kept as meta `metrics`, so that a list of runs need not look."""

_RETRY_AFTER_S = 2.0
_TEXT_LIMIT = 64_000

_VECTOR = "INSERT INTO vectors VALUES (?, ?, ?, ?)"
_SCALAR = "INSERT INTO scalars VALUES (?, ?, ?, ?, ?)"
_ROLLUP = "INSERT INTO rollups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LOG = "INSERT INTO logs (time, level, message) VALUES (?, ?, ?)"
_SIGNAL = (
    "INSERT INTO signals VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET axis = excluded.axis, unit = excluded.unit"
)
_STATUS = "UPDATE status SET step = ?, max_steps = ?, heartbeat = ?"


class _Signal:
    """A signal that is being written."""

    __slots__ = ("id", "series", "width")

    def __init__(self, number: int, width: int, series: SeriesState) -> None:
        self.id = number
        self.width = width
        self.series = series


class Recording:
    """The Recorder's methods; `RunWriter` adds opening and ending. Safe to call from several threads."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        """Record into an open connection whose run this process has locked."""
        self.folder = folder
        self.warnings: list[str] = []
        self._connection = connection
        self._guard = threading.RLock()
        self._closed = threading.Event()
        self._pending = Pending()
        self._dirty_since: float | None = None
        self._next_try = 0.0
        self._failure: str | None = None
        self._signals: dict[str, _Signal] = {}
        self._scalars: dict[tuple[str, str], SeriesState] = {}
        self._metrics: dict[str, float] = {}
        self._metrics_step: int | None = None
        self._step, self._max_steps = connection.execute("SELECT step, max_steps FROM status").fetchone()
        self._heartbeat = now()
        self._activity: dict[str, Any] | None = None
        self._has_activity = False
        self._restore()

    def _restore(self) -> None:
        for number, name, width in self._connection.execute("SELECT id, name, width FROM signals").fetchall():
            series = restored(self._connection, name, signal=number)
            self._signals[name] = _Signal(number, width, series)
        for key in list(scalar_names(self._connection)):
            self._scalars[key] = restored(self._connection, *key)
        self._metrics_step, self._metrics = last_values(self._connection, METRICS_SPLIT)
        self._add(SET_META, ("metrics", jsontext.dump(self._metrics)))

    def define_modules(self, rows: Sequence[ModuleRow]) -> None:
        """Set the adapted modules in order; each row has name, layer, kind, d_in, d_out and max_rank."""
        values = [(row.name, row.layer, row.kind, row.d_in, row.d_out, row.max_rank) for row in rows]
        self._replace("modules", values)

    def define_groups(self, names: Sequence[str]) -> None:
        """Set the input groups in order; a group's index is its position."""
        self._replace("groups", [(jsontext.clip(str(name), 1000),) for name in names])

    def define_examples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Set the fixed probe set: dicts with text, text_pair, label, group, x and y (all but text optional)."""
        self._replace("examples", [_example(row) for row in rows])

    def define_signal(self, name: str, axis: str, unit: str, width: int) -> None:
        """Announce a signal of `width` float32 values per step; announcing it again changes nothing.

        Raises:
            ValueError: when the axis is unknown, or the width is out of range or not the one recorded before.
        """
        if axis not in schema.AXES:
            raise ValueError(f"axis {axis!r} of signal {name!r}: use one of {', '.join(schema.AXES)}")
        if not 1 <= width <= schema.MAX_WIDTH:
            raise ValueError(f"width {width} of signal {name!r}: must be from 1 to {schema.MAX_WIDTH}")
        with self._guard:
            known = self._signals.get(name)
            if known is None:
                known = self._signals[name] = _Signal(len(self._signals) + 1, width, SeriesState())
            if known.width != width:
                raise ValueError(f"width {width} of signal {name!r}: the run already has it with width {known.width}")
            self._add(_SIGNAL, (known.id, name, axis, unit, width))

    def vector(self, signal: str, step: int, values: ArrayLike) -> None:
        """Record one vector of a signal; a second one for a step that has passed is dropped with a warning.

        Raises:
            ValueError: when the signal was not defined or the number of values is not its width.
        """
        known = self._signals.get(signal)
        if known is None:
            raise ValueError(f"signal {signal!r} is not defined: call define_signal first")
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(values, dtype="<f4")
        if array.size != known.width:
            raise ValueError(f"signal {signal!r} takes {known.width} values per step, not {array.size}")
        data = array.tobytes()
        with self._guard:
            if not self._advance(known.series, f"signal {signal}", step):
                return
            self._add(_VECTOR, (known.id, step, data, vector_crc(step, data)), len(data) + 64)
            for level, bucket in known.series.rollup.add(step, np.frombuffer(data, "<f4")):
                self._add_rollup(signal, "", level, bucket)

    def scalar(self, name: str, split: str, step: int, value: float) -> None:
        """Record one number; a second one for a step that has passed is dropped with a warning."""
        number = float(value)
        with self._guard:
            series = self._scalars.get((name, split))
            if series is None:
                series = self._scalars[name, split] = SeriesState(seed=series_seed(name, split))
            if not self._advance(series, f"scalar {split}/{name}", step):
                return
            stored = None if number != number else number
            self._add(_SCALAR, (name, split, step, stored, scalar_crc(series.seed, step, stored)))
            if split == METRICS_SPLIT:
                self._set_metric(name, step, number)
            for level, bucket in series.rollup.add(step, np.array([number])):
                self._add_rollup(name, split, level, bucket)

    def event(self, step: int, kind: str, modules: Iterable[int], payload: Mapping[str, Any]) -> None:
        """Record a discrete change of some modules (by position) with a JSON payload."""
        positions = jsontext.dump([int(module) for module in modules])
        text = jsontext.dump(dict(payload))
        with self._guard:
            self._add(ADD_EVENT, event_row(int(step), kind, positions, text), len(text) + 128)

    def log(self, level: str, message: str) -> None:
        """Record one line."""
        with self._guard:
            self._add(_LOG, (now(), level, jsontext.clip(message, _TEXT_LIMIT)), len(message) + 64)

    def system(self, values: Mapping[str, float]) -> None:
        """Record readings of the machine, e.g. `{"rss_mib": 812.0}`; units belong in the names."""
        time_ = now()
        with self._guard:
            for name, value in values.items():
                self._add("INSERT INTO system VALUES (?, ?, ?)", (time_, name, float(value)))

    def set_meta(self, key: str, value: Any) -> None:
        """Set one fact about the run; the value is JSON."""
        text = jsontext.dump(value)
        with self._guard:
            self._add(SET_META, (key, text), len(text) + 64)

    def update_max_steps(self, max_steps: int) -> None:
        """Set the number of steps of the whole run."""
        with self._guard:
            self._max_steps = int(max_steps)
            self._touch()

    def progress(self, step: int) -> None:
        """Note that a step is complete: the heartbeat. Commits when the last commit is half a second old."""
        with self._guard:
            self._step = int(step)
            self._heartbeat = now()
            self._touch()
            if time.monotonic() >= self._next_try:
                self._try_commit()

    def activity(self, phase: str, remaining_s: float | None) -> None:
        """Note what the run does now and how long it still takes, as of now; a sign of life like `progress`."""
        with self._guard:
            self._heartbeat = now()
            self._activity = {"phase": phase, "remaining_s": remaining_s, "at": self._heartbeat}
            self._touch()

    def commit(self, durable: bool = False) -> None:
        """Make all rows visible to readers.

        Args:
            durable: also bring them to the disk (fsync) before returning.

        Raises:
            OSError: only with `durable`, when the disk did not take them.
        """
        with self._guard:
            if not durable:
                self._try_commit()
                return
            try:
                self._connection.execute("PRAGMA synchronous=FULL")
                self._commit()
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._connection.execute("PRAGMA synchronous=NORMAL")
            except sqlite3.Error as error:
                self._note_failure(error)
                raise OSError(f"run {self.folder.name}: the record cannot be written ({error})") from error

    def _replace(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * (len(rows[0]) + 1)) if rows else ""
        with self._guard:
            self._add(f"DELETE FROM {table} WHERE position >= ?", (len(rows),))
            for position, row in enumerate(rows):
                self._add(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (position, *row), 256)

    def _advance(self, series: SeriesState, what: str, step: int) -> bool:
        if series.last_step is None or step > series.last_step:
            series.last_step = step
            return True
        if not series.warned:
            series.warned = True
            self.warn(f"{what}: step {step} came after step {series.last_step} and was not recorded")
        return False

    def _set_metric(self, name: str, step: int, value: float) -> None:
        if step != self._metrics_step:
            self._metrics_step, self._metrics = step, {}
        self._metrics[name] = value
        self._add(SET_META, ("metrics", jsontext.dump(self._metrics)), 256)

    def _add_rollup(self, name: str, split: str, level: int, bucket: Bucket) -> None:
        low, high, last = bucket.low.tobytes(), bucket.high.tobytes(), bucket.last.tobytes()
        crc = bucket_crc(bucket.first_step, bucket.last_step, low, high, last)
        row = (name, split, level, bucket.first_step, bucket.last_step, low, high, last, crc)
        self._add(_ROLLUP, row, 3 * len(low) + 96)

    def _add(self, statement: str, row: tuple[Any, ...], size: int = 64) -> None:
        self._pending.add(statement, row, size)
        self._touch()

    def _touch(self) -> None:
        if self._dirty_since is None:
            self._dirty_since = time.monotonic()

    def _commit(self) -> None:
        if self._activity is not None:
            self._pending.add(SET_META, (ACTIVITY, jsontext.dump(self._activity)), 128)
            self._activity, self._has_activity = None, True
        self._pending.write(self._connection, (_STATUS, (self._step, self._max_steps, self._heartbeat)))
        self._dirty_since = None
        self._next_try = time.monotonic() + COMMIT_EVERY_S
        if self._failure is not None:
            lost = f", {self._pending.dropped} rows were lost" if self._pending.dropped else ""
            self.warn(f"recording failed for a while and continues now{lost}: {self._failure}")
            self._failure = None
            self._pending.dropped = 0

    def _try_commit(self, *, durable: bool = False) -> None:
        try:
            if durable:
                self._connection.execute("PRAGMA synchronous=FULL")
            self._commit()
        except sqlite3.Error as error:
            self._note_failure(error)

    def _note_failure(self, error: sqlite3.Error) -> None:
        self._next_try = time.monotonic() + _RETRY_AFTER_S
        if self._failure is None:
            self.warnings.append(f"recording failed, training continues: {error}")
            logger.warning("run %s: %s", self.folder.name, self.warnings[-1])
        self._failure = str(error)

    def warn(self, message: str) -> None:
        """Record a warning: it is shown with the run, and in the log of its process."""
        logger.warning("run %s: %s", self.folder.name, message)
        text = jsontext.dump({"message": message})
        with self._guard:
            self.warnings.append(message)
            self._add(ADD_EVENT, event_row(self._step, "warning", "[]", text), len(text))


def _example(row: Mapping[str, Any]) -> tuple[Any, ...]:
    def text(key: str) -> str | None:
        value = row.get(key)
        return None if value is None else jsontext.clip(str(value), _TEXT_LIMIT)

    x, y = (None if row.get(key) is None else float(row[key]) for key in ("x", "y"))
    return (text("text") or "", text("text_pair"), text("label"), text("group"), x, y)


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
        while not self._closed.wait(LOOK_EVERY_S):
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
