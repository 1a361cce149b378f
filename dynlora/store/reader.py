"""`RunReader`: reads a run that may be growing, finished, cut short or hostile; it never writes and trusts nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dynlora.errors import CorruptRunError
from dynlora.store import jsontext, schema, series
from dynlora.store.connection import open_reader
from dynlora.store.lifecycle import host, is_alive, now, stop_requested
from dynlora.store.meta import is_count, moment
from dynlora.store.rows import (
    Bins,
    Event,
    Example,
    FloatArray,
    IntArray,
    LogLine,
    ModuleRow,
    Series,
    SignalRow,
    Status,
    SystemSeries,
)
from dynlora.store.series import scalar_names

STALLED_AFTER_S = 15.0
"""Silence of a living process, seconds, after which a run is shown as stalled."""


class RunReader:
    """An open run; use it in a `with` block and briefly: a run cannot be wrapped up while readers hold it."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a run.

        Raises:
            RunNotFoundError: when the folder holds no run.
            CorruptRunError: when it holds something else, or a run of a newer dynlora.
        """
        self.folder = Path(os.path.abspath(folder))
        self._connection = open_reader(self.folder)
        with self._guarded():
            self._crc = schema.crc_column(self._connection)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> RunReader:
        """Return the reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what is wrong with the run names it."""
        self.close()
        if type(error) is CorruptRunError and self.folder.name not in str(error):
            raise CorruptRunError(f"run {self.folder.name}: {error}") from None

    def meta(self, keys: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the facts about the run, all or some of them."""
        condition = "" if keys is None else f" WHERE key IN ({', '.join('?' * len(keys))})"
        rows = self._rows(f"SELECT key, value FROM meta{condition}", tuple(keys or ()), limit=10_000)
        values = jsontext.load_all([jsontext.text(value) for _, value in rows])
        return {jsontext.text(key): value for (key, _), value in zip(rows, values, strict=True)}

    def status(self) -> Status:
        """Return the state of the run; `interrupted` only when its process on this machine is gone."""
        rows = self._rows(
            "SELECT state, step, max_steps, heartbeat, pid, process_start, host, error, opened FROM status LIMIT 2",
            limit=2,
        )
        if len(rows) != 1:
            raise self._corrupt("its status is missing")
        status = derive_status(rows[0], self._corrupt)
        if status.status == "running" and stop_requested(self.folder, status.pid, status.process_start):
            return replace(status, status="stopping")
        return status

    def last_step(self) -> int:
        """Return the last completed step that is visible."""
        return self.status().step

    def version_key(self) -> tuple[int, int, str, int]:
        """Return (last event, last step, state, times opened): changes whenever there is something new to read."""
        rows = self._rows(
            "SELECT coalesce((SELECT max(seq) FROM events), 0), step, state, opened FROM status LIMIT 2", limit=2
        )
        if len(rows) != 1:
            raise self._corrupt("its status is missing")
        seq, step, state, opened = rows[0]
        return jsontext.integer(seq), jsontext.integer(step), jsontext.text(state), jsontext.integer(opened)

    def modules(self) -> list[ModuleRow]:
        """Return the adapted modules in order."""
        rows = self._ordered("modules", "name, layer, kind, d_in, d_out, max_rank", 100_000)
        if len({name for name, *_ in rows}) < len(rows):
            raise self._corrupt("two of its modules have one name, so the run is damaged; delete it or restore run.db")
        return [
            ModuleRow(
                jsontext.name_of(name),
                None if layer is None else jsontext.size(layer),
                jsontext.name_of(kind),
                *map(jsontext.size, sizes),
            )
            for name, layer, kind, *sizes in rows
        ]

    def groups(self) -> list[str]:
        """Return the names of the input groups in order."""
        return [jsontext.name_of(name) for (name,) in self._ordered("groups", "name", 10_000)]

    def examples(self) -> list[Example]:
        """Return the fixed probe set."""
        rows = self._ordered("examples", "text, text_pair, label, grp, x, y", 100_000)
        return [
            Example(
                position,
                jsontext.text(text),
                jsontext.optional_text(pair),
                jsontext.optional_text(label),
                jsontext.optional_text(group),
                jsontext.real(x),
                jsontext.real(y),
            )
            for position, (text, pair, label, group, x, y) in enumerate(rows)
        ]

    def signals(self) -> dict[str, SignalRow]:
        """Return the recorded signals by name."""
        rows = self._rows("SELECT id, name, axis, unit, width FROM signals ORDER BY id", limit=schema.MAX_SIGNALS)
        signals: dict[str, SignalRow] = {}
        for number, name, axis, unit, width in rows:
            if axis not in schema.AXES or not 1 <= jsontext.integer(width) <= schema.MAX_WIDTH:
                raise self._corrupt(f"signal {jsontext.name_of(name)[:40]!r} has an invalid axis or width")
            signals[jsontext.name_of(name)] = SignalRow(
                jsontext.integer(number), jsontext.name_of(name), axis, jsontext.name_of(unit), width
            )
        return signals

    def recorded(self) -> list[str]:
        """Return the names of the signals that hold at least one vector."""
        rows = self._rows(
            "SELECT name FROM signals WHERE EXISTS (SELECT 1 FROM vectors WHERE signal = signals.id) ORDER BY id",
            limit=schema.MAX_SIGNALS,
        )
        return [jsontext.name_of(name) for (name,) in rows]

    def signal(
        self, name: str, start: int | None = None, stop: int | None = None, max_points: int | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return (steps (n,), values (n, width)) of a signal for start <= step < stop.

        Args:
            name: the signal.
            start: first step, or None for the first recorded.
            stop: step to end before, or None for no end.
            max_points: at most so many rows. A longer series comes as least, greatest and last value of bins, three
                rows each, so that no peak is lost; the same file and arguments always give the same rows.

        Raises:
            KeyError: when the run holds no such signal.
            ValueError: when the result would be too large without `max_points`.
        """
        row = self._signal(name)
        with self._guarded():
            return series.vectors(self._connection, row, start, stop, max_points)

    def bins(self, name: str, max_bins: int, start: int | None = None, stop: int | None = None) -> Bins:
        """Return a signal for start <= step < stop in at most `max_bins` bins, from the roll-ups.

        Raises:
            KeyError: when the run holds no such signal.
        """
        row = self._signal(name)
        with self._guarded():
            return series.vector_bins(self._connection, row, start, stop, max_bins)

    def last_vector(self, name: str, at: int | None = None) -> tuple[int, FloatArray] | None:
        """Return (step, values (width,)) of a signal's last vector up to step `at`, None when there is none yet.

        Raises:
            KeyError: when the run holds no such signal.
        """
        row = self._signal(name)
        with self._guarded():
            return series.last_vector(self._connection, row, at)

    def scalars(
        self,
        name: str | None = None,
        split: str | None = None,
        start: int | None = None,
        stop: int | None = None,
        max_points: int | None = None,
    ) -> list[Series]:
        """Return the scalar series, all or those of one name or split, binned as in `signal`."""
        with self._guarded():
            keys: list[tuple[str, str]] = []
            for key in scalar_names(self._connection):
                keys.append(key)
                if len(keys) > schema.MAX_SIGNALS:
                    raise self._corrupt("it has too many scalar series")
            return [
                series.scalars(
                    self._connection, jsontext.name_of(key[0]), jsontext.name_of(key[1]), start, stop, max_points
                )
                for key in keys
                if name in (None, key[0]) and split in (None, key[1])
            ]

    def last_scalars(self, name: str, split: str, last_n: int) -> list[float]:
        """Return the last values of one scalar series, oldest first; missing ones (NaN) are left out."""
        rows = self._rows(
            f"SELECT step, value, {self._crc} FROM scalars WHERE name = ? AND split = ? AND value IS NOT NULL "
            "ORDER BY step DESC LIMIT ?",
            (name, split, max(0, min(last_n, 10_000))),
        )
        return [row[1] for row in series.checked_scalars(name, split, rows)[::-1]]

    def events(self, after_seq: int = 0, kinds: Sequence[str] | None = None) -> list[Event]:
        """Return the events after a sequence number, all or of some kinds, in order."""
        condition = "" if kinds is None else f" AND kind IN ({', '.join('?' * len(kinds))})"
        rows = self._rows(
            f"SELECT seq, time, step, kind, modules, payload, {self._crc} FROM events WHERE seq > ?{condition} "
            "ORDER BY seq",
            (after_seq, *(kinds or ())),
        )
        return [jsontext.event(row) for row in rows]

    def logs(self, last_n: int = 200) -> list[LogLine]:
        """Return the last lines of the run's own log, oldest first."""
        rows = self._rows(
            "SELECT seq, time, level, message FROM logs ORDER BY seq DESC LIMIT ?", (max(0, min(last_n, 100_000)),)
        )
        return [
            LogLine(jsontext.integer(s), jsontext.real(t), jsontext.name_of(level), jsontext.text(message))
            for s, t, level, message in rows[::-1]
        ]

    def system(self) -> list[SystemSeries]:
        """Return the readings of the machine over time, by name."""
        readings: dict[str, list[tuple[float, float]]] = {}
        for time, name, value in self._rows("SELECT time, name, value FROM system ORDER BY rowid"):
            readings.setdefault(jsontext.name_of(name), []).append((jsontext.real(time), jsontext.real(value)))
        return [
            SystemSeries(name, np.array([t for t, _ in rows]), np.array([v for _, v in rows]))
            for name, rows in sorted(readings.items())
        ]

    def _signal(self, name: str) -> SignalRow:
        known = self.signals()
        if name not in known:
            raise KeyError(f"run {self.folder.name} has no signal {name!r}; it has {', '.join(known) or 'none yet'}")
        return known[name]

    def _ordered(self, table: str, columns: str, limit: int) -> list[tuple[Any, ...]]:
        rows = self._rows(f"SELECT position, {columns} FROM {table} ORDER BY position", limit=limit)
        if [row[0] for row in rows] != list(range(len(rows))):
            raise self._corrupt(f"rows of table {table} are missing")
        return [row[1:] for row in rows]

    def _rows(self, query: str, values: Sequence[Any] = (), limit: int = schema.MAX_ROWS) -> list[tuple[Any, ...]]:
        with self._guarded():
            return list(self._counted(self._connection.execute(query, values), limit))

    def _counted(self, cursor: sqlite3.Cursor, limit: int) -> Iterator[tuple[Any, ...]]:
        size = 0
        for number, row in enumerate(cursor):
            size += sum(len(cell) for cell in row if isinstance(cell, str | bytes))
            if number >= limit or size > schema.MAX_RESULT_BYTES:
                raise self._corrupt(f"a table has more than {limit} rows, the limit of a run")
            yield row

    def _guarded(self) -> jsontext.Guard:
        return jsontext.Guard(self.folder)

    def _corrupt(self, what: str) -> CorruptRunError:
        return CorruptRunError(f"run {self.folder.name}: {what}")


def derive_status(row: Sequence[Any], corrupt: Any = CorruptRunError) -> Status:
    """Return the status from the stored row (state, step, max_steps, heartbeat, pid, process_start, host, ...)."""
    state, step, max_steps, heartbeat, pid, start, where, error, opened = row
    if state not in schema.STATES:
        raise corrupt("its state is unknown")
    counts, times = (step, max_steps, opened), (heartbeat, 0.0 if start is None else start)
    if not all(is_count(cell) for cell in counts) or not all(
        isinstance(cell, float) and moment(cell) is not None for cell in times
    ):
        raise corrupt("its status cannot be read")
    if not isinstance(pid, int | None):
        raise corrupt("its process cannot be read")
    age = max(0.0, now() - heartbeat)
    other_host = state == "running" and where is not None and where != host()
    status, stalled = state, None
    if state == "running" and not other_host:
        if is_alive(pid, start):
            stalled = age if age > STALLED_AFTER_S else None
        else:
            status = "interrupted"
    return Status(
        status,
        state,
        step,
        max_steps,
        heartbeat,
        age,
        stalled,
        other_host,
        pid,
        start,
        jsontext.optional_text(where),
        jsontext.optional_text(error),
        opened,
    )
