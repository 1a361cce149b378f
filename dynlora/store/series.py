"""Vectors and scalars over the steps: exactly, or in bins of roll-ups; cut back and taken up again."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynlora.errors import CorruptRunError
from dynlora.store.rows import Bins, FloatArray, IntArray, Series, SignalRow
from dynlora.store.schema import LEVELS, MAX_RESULT_BYTES, MAX_ROWS, crc_column

_pack = struct.Struct("<qd").pack
_crc32 = zlib.crc32
_NAN = float("nan")
Values = NDArray[np.float32] | NDArray[np.float64]
_FACTORS = (LEVELS[0], *(high // low for low, high in zip(LEVELS, LEVELS[1:], strict=False)))


class Bucket(NamedTuple):
    """Rows of neighbouring steps summed up; `low`, `high` and `last` have shape (width,)."""

    first_step: int
    last_step: int
    low: Values
    high: Values
    last: Values


class RollUp:
    """The open buckets of one series at every level."""

    def __init__(self) -> None:
        """Start with no rows."""
        self._open: list[list[Bucket]] = [[] for _ in LEVELS]

    def add(self, step: int, values: Values) -> Iterator[tuple[int, Bucket]]:
        """Take one row and yield (level, bucket) for each bucket that it fills, finest first."""
        bucket = Bucket(step, step, values, values, values)
        for index, level in enumerate(LEVELS):
            parts = self._open[index]
            parts.append(bucket)
            if len(parts) < _FACTORS[index]:
                return
            bucket = merge(parts)
            parts.clear()
            yield level, bucket

    def restore(self, index: int, parts: list[Bucket]) -> None:
        """Set the open parts of the level `LEVELS[index]`, oldest first: rows for 0, else finer buckets."""
        self._open[index] = parts


def merge(parts: list[Bucket]) -> Bucket:
    """Return one bucket for neighbouring ones; NaN counts only where every value is NaN."""
    low = np.fmin.reduce([part.low for part in parts])
    high = np.fmax.reduce([part.high for part in parts])
    return Bucket(parts[0].first_step, parts[-1].last_step, low, high, parts[-1].last)


def vector_crc(step: int, data: bytes) -> int:
    """Return the CRC-32 of a blob, started at its step so that a changed step shows too."""
    return zlib.crc32(data, step & 0xFFFFFFFF)


def series_seed(name: str, split: str) -> int:
    """Return what the checksums of a scalar's rows start at."""
    return zlib.crc32(f"{name}\0{split}".encode("utf-8", "replace"))


def scalar_crc(seed: int, step: int, value: float | None) -> int:
    """Return the CRC-32 of a scalar's row: its step and its value, a missing one as NaN; -0.0 is 0.0 to SQLite."""
    return _crc32(_pack(step, _NAN if value is None else value + 0.0), seed)


def old_zero_crc(seed: int, step: int) -> int:
    """Return the CRC-32 that earlier versions took of a -0.0, which SQLite gives back as 0.0."""
    return _crc32(_pack(step, -0.0), seed)


def event_crc(time: float, step: int, kind: str, modules: str, payload: str) -> int:
    """Return the CRC-32 of an event: its time and step, then its texts."""
    return zlib.crc32("\0".join((kind, modules, payload)).encode("utf-8", "replace"), zlib.crc32(_pack(step, time)))


def bucket_crc(first_step: int, last_step: int, low: bytes, high: bytes, last: bytes) -> int:
    """Return the CRC-32 of a roll-up's steps and blobs."""
    crc = zlib.crc32(low, (first_step ^ (last_step << 8)) & 0xFFFFFFFF)
    return zlib.crc32(last, zlib.crc32(high, crc))


_FIRST = -(2**62)
_END = 2**62


_SCALAR_ROWS = "scalars WHERE name = ? AND split = ?"
_ROLLUP_ROWS = "SELECT first_step, last_step, low, high, last FROM rollups WHERE name = ? AND split = ? AND level = ?"


class _Key(NamedTuple):
    """One series of the file: a signal, or a scalar of a split (then `signal` is None)."""

    name: str
    split: str
    signal: SignalRow | None

    @property
    def dtype(self) -> str:
        return "<f8" if self.signal is None else "<f4"

    @property
    def width(self) -> int:
        return 1 if self.signal is None else self.signal.width

    @property
    def rows(self) -> tuple[str, tuple[Any, ...]]:
        """Table and condition of its rows, and the values of the condition."""
        if self.signal is None:
            return _SCALAR_ROWS, (self.name, self.split)
        return "vectors WHERE signal = ?", (self.signal.id,)

    @property
    def cell_bytes(self) -> int:
        return self.width * int(self.dtype[-1])


class _Piece(NamedTuple):
    """Neighbouring buckets of one level, or single rows (level 1): steps (n,), values (n, width)."""

    level: int
    first: IntArray
    end: IntArray
    low: NDArray[np.floating[Any]]
    high: NDArray[np.floating[Any]]
    last: NDArray[np.floating[Any]]


def vectors(
    connection: sqlite3.Connection, signal: SignalRow, start: int | None, stop: int | None, max_points: int | None
) -> tuple[IntArray, FloatArray]:
    """Return (steps, values (n, width)) of a signal, see `RunReader.signal`."""
    key = _Key(signal.name, "", signal)
    if max_points is None:
        piece = _rows(connection, key, *_range(start, stop))
        return piece.first, piece.last
    steps, values = _spread(_bins(connection, key, start, stop, max_points // 3, exact=max_points))
    return steps, values


def vector_bins(
    connection: sqlite3.Connection, signal: SignalRow, start: int | None, stop: int | None, max_bins: int
) -> Bins:
    """Return a signal in at most `max_bins` bins."""
    return _bins(connection, _Key(signal.name, "", signal), start, stop, max_bins)


def last_vector(connection: sqlite3.Connection, signal: SignalRow, at: int | None) -> tuple[int, FloatArray] | None:
    """Return (step, values) of the last vector up to step `at`."""
    query = "SELECT max(step) FROM vectors WHERE signal = ? AND step <= ?"
    (step,) = connection.execute(query, (signal.id, _END if at is None else at)).fetchone()
    if step is None:
        return None
    piece = _rows(connection, _Key(signal.name, "", signal), step, step + 1)
    return (int(step), piece.last[0]) if len(piece.first) else None


def scalars(
    connection: sqlite3.Connection, name: str, split: str, start: int | None, stop: int | None, max_points: int | None
) -> Series:
    """Return one scalar series, see `RunReader.scalars`."""
    key = _Key(name, split, None)
    if max_points is None:
        piece = _rows(connection, key, *_range(start, stop))
        return Series(name, split, piece.first, piece.last[:, 0].astype(np.float64), len(piece.first))
    bins = _bins(connection, key, start, stop, max_points // 3, exact=max_points)
    steps, values = _spread(bins)
    return Series(name, split, steps, values[:, 0].astype(np.float64), bins.points)


def _range(start: int | None, stop: int | None) -> tuple[int, int]:
    lower = _FIRST if start is None else max(_FIRST, min(start, _END))
    return lower, _END if stop is None else max(_FIRST, min(stop, _END))


def _rows(connection: sqlite3.Connection, key: _Key, start: int, stop: int) -> _Piece:
    limit = min(MAX_ROWS * 10, MAX_RESULT_BYTES // key.cell_bytes)
    columns = f"value, {crc_column(connection)}"
    if key.signal is not None:
        columns = f"CASE WHEN typeof(data) = 'blob' AND length(data) = {key.cell_bytes} THEN data END, crc"
    where, of = key.rows
    query = f"SELECT step, {columns} FROM {where} AND step >= ? AND step < ? ORDER BY step LIMIT ?"
    rows = connection.execute(query, (*of, start, stop, limit + 1)).fetchall()
    if key.signal is None:
        rows = checked_scalars(key.name, key.split, rows)
        values = np.array([np.nan if row[1] is None else row[1] for row in rows], dtype=np.float64)
    else:
        if not all(isinstance(step, int) and data and vector_crc(step, data) == crc for step, data, crc in rows):
            raise CorruptRunError(f"a vector of signal {key.name!r} is damaged")
        values = np.frombuffer(b"".join(row[1] for row in rows), key.dtype)
    if len(rows) > limit:
        raise ValueError(f"{key.name!r} holds more than {limit} rows here: ask for a range or with max_points")
    steps = np.array([row[0] for row in rows], dtype=np.int64)
    values = values.reshape(len(rows), key.width)
    return _Piece(1, steps, steps, values, values, values)


def checked_scalars(name: str, split: str, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows (step, value, checksum) of one scalar unchanged; a run of version 1 has no checksums.

    Raises:
        CorruptRunError: when one of them is not as it was written.
    """
    seed = series_seed(name, split)
    for step, value, crc in rows:
        is_row = isinstance(step, int) and isinstance(value, float | None)
        is_whole = is_row and (crc is None or crc == scalar_crc(seed, step, value))
        if not is_whole and not (is_row and value == 0 and crc == old_zero_crc(seed, step)):
            raise CorruptRunError(f"a value of scalar {name!r} is damaged")
    return rows


def _buckets(connection: sqlite3.Connection, key: _Key, level: int, start: int, stop: int) -> _Piece:
    size = key.cell_bytes
    limit = MAX_RESULT_BYTES // (3 * size)
    rows = connection.execute(
        "SELECT first_step, last_step, CASE WHEN length(low) = ? THEN low END, "
        "CASE WHEN length(high) = ? THEN high END, CASE WHEN length(last) = ? THEN last END, crc FROM rollups "
        "WHERE name = ? AND split = ? AND level = ? AND first_step >= ? AND first_step < ? "
        "ORDER BY first_step LIMIT ?",
        (size, size, size, key.name, key.split, level, start, stop, limit),
    ).fetchall()
    for row in rows:
        if not _is_sound(row):
            raise CorruptRunError(f"a roll-up of {key.name!r} is damaged")
    if rows and rows[-1][1] >= stop:
        rows.pop()
    first, end = (np.array([row[column] for row in rows], dtype=np.int64) for column in (0, 1))
    low, high, last = (
        np.frombuffer(b"".join(row[column] for row in rows), key.dtype).reshape(len(rows), key.width)
        for column in (2, 3, 4)
    )
    return _Piece(level, first, end, low, high, last)


def _is_sound(row: tuple[Any, ...]) -> bool:
    steps, blobs = row[:2], row[2:5]
    if not all(isinstance(step, int) for step in steps) or not all(isinstance(blob, bytes) for blob in blobs):
        return False
    return bucket_crc(*steps, *blobs) == row[5]


def _cover(connection: sqlite3.Connection, key: _Key, index: int, start: int, stop: int) -> Iterator[_Piece]:
    """Yield pieces that cover start <= step < stop with level `LEVELS[index]`, finer ones only at the edges."""
    if start >= stop:
        return
    if index < 0:
        yield _rows(connection, key, start, stop)
        return
    piece = _buckets(connection, key, LEVELS[index], start, stop)
    if not len(piece.first):
        yield from _cover(connection, key, index - 1, start, stop)
        return
    yield from _cover(connection, key, index - 1, start, int(piece.first[0]))
    yield piece
    yield from _cover(connection, key, index - 1, int(piece.end[-1]) + 1, stop)


def _count(connection: sqlite3.Connection, key: _Key, index: int, start: int, stop: int) -> int:
    """Return how many rows are in start <= step < stop, counted by the coarsest buckets."""
    if start >= stop:
        return 0
    if index < 0:
        rows, values = key.rows
        query = f"SELECT count(*) FROM {rows} AND step >= ? AND step < ?"
        return int(connection.execute(query, (*values, start, stop)).fetchone()[0])
    number, first, end = connection.execute(
        "SELECT count(*), min(first_step), max(last_step) FROM rollups "
        "WHERE name = ? AND split = ? AND level = ? AND first_step >= ? AND first_step < ? AND last_step < ?",
        (key.name, key.split, LEVELS[index], start, stop, stop),
    ).fetchone()
    if not number:
        return _count(connection, key, index - 1, start, stop)
    if not isinstance(first, int) or not isinstance(end, int) or end < first:
        raise CorruptRunError(f"a roll-up of {key.name!r} is damaged")
    return (
        _count(connection, key, index - 1, start, first)
        + number * LEVELS[index]
        + _count(connection, key, index - 1, end + 1, stop)
    )


def _bins(
    connection: sqlite3.Connection, key: _Key, start: int | None, stop: int | None, bins: int, exact: int | None = None
) -> Bins:
    """Return at most `bins` bins of about equally many rows, or every row as its own bin up to `exact` rows."""
    bins = max(1, bins)
    lower, upper = _range(start, stop)
    total = _count(connection, key, len(LEVELS) - 1, lower, upper)
    index = -1
    if total > max(bins, exact or 0):
        index += sum(total // level >= bins for level in LEVELS)
    else:
        bins = max(1, total)
    pieces = list(_cover(connection, key, index, lower, upper))
    pieces = [piece for piece in pieces if len(piece.first)] or [_rows(connection, key, lower, lower)]
    count = np.concatenate([np.full(len(piece.first), piece.level, dtype=np.int64) for piece in pieces])
    if not len(count):
        empty = pieces[0]
        return Bins(empty.first, empty.end, count, empty.low, empty.high, empty.last)
    before = np.cumsum(count) - count
    position = before * bins // int(count.sum())
    heads = np.flatnonzero(np.diff(position, prepend=-1))
    tails = np.append(heads[1:], len(count)) - 1

    def joined(field: str) -> NDArray[Any]:
        return np.concatenate([getattr(piece, field) for piece in pieces])

    return Bins(
        joined("first")[heads],
        joined("end")[tails],
        np.add.reduceat(count, heads),
        np.fmin.reduceat(joined("low"), heads, axis=0),
        np.fmax.reduceat(joined("high"), heads, axis=0),
        joined("last")[tails],
    )


def _spread(bins: Bins) -> tuple[IntArray, NDArray[Any]]:
    """Return rows for bins: a single row as it is, others as least, greatest and last value at three steps."""
    span = bins.last_step - bins.first_step
    wide = (bins.count >= 3) & (span >= 2)
    rows = list(chain.from_iterable(((i, 0), (i, 1), (i, 2)) if wide[i] else ((i, 2),) for i in range(len(wide))))
    if not rows:
        return bins.first_step, bins.last
    which, kind = np.array(rows).T
    steps = np.stack([bins.first_step, bins.first_step + span // 2, bins.last_step])
    values = np.stack([bins.low, bins.high, bins.last])
    return steps[kind, which], values[kind, which]


_DEFINITIONS = ("vectors", "scalars", "rollups", "events", "signals", "modules", "groups", "examples")


class SeriesState:
    """Where one series is: its last step and its open roll-ups."""

    __slots__ = ("last_step", "rollup", "seed", "warned")

    def __init__(self, last_step: int | None = None, seed: int = 0) -> None:
        """Start without rows, or after `last_step`; the checksums of a scalar's rows start at `seed`."""
        self.last_step = last_step
        self.seed = seed
        self.rollup = RollUp()
        self.warned = False


def scalar_names(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield (name, split) of each scalar series by skipping through the index, not by reading every row."""
    row = connection.execute("SELECT name, split FROM scalars ORDER BY name, split LIMIT 1").fetchone()
    while row is not None:
        yield row
        row = connection.execute(
            "SELECT name, split FROM scalars WHERE (name, split) > (?, ?) ORDER BY name, split LIMIT 1", row
        ).fetchone()


def last_values(connection: sqlite3.Connection, split: str) -> tuple[int | None, dict[str, float]]:
    """Return (step, {name: value}) of a split's scalars at the latest step any of them has."""
    values: dict[str, tuple[int, float]] = {}
    for name, of in list(scalar_names(connection)):
        if of == split:
            step, value = connection.execute(
                "SELECT step, value FROM scalars WHERE name = ? AND split = ? ORDER BY step DESC LIMIT 1", (name, of)
            ).fetchone()
            values[name] = (step, float("nan") if value is None else value)
    latest = max((step for step, _ in values.values()), default=None)
    return latest, {name: value for name, (step, value) in values.items() if step == latest}


def truncate(connection: sqlite3.Connection, resume_from: int | None) -> None:
    """Delete rows past a checkpoint, inside the caller's transaction; everything recorded when None."""
    if resume_from is None:
        for table in _DEFINITIONS:
            connection.execute(f"DELETE FROM {table}")
        return
    for (signal,) in connection.execute("SELECT id FROM signals").fetchall():
        connection.execute("DELETE FROM vectors WHERE signal = ? AND step > ?", (signal, resume_from))
    for name, split in list(scalar_names(connection)):
        connection.execute("DELETE FROM scalars WHERE name = ? AND split = ? AND step > ?", (name, split, resume_from))
    connection.execute("DELETE FROM rollups WHERE last_step > ?", (resume_from,))
    connection.execute("DELETE FROM events WHERE step > ?", (resume_from,))


def restored(connection: sqlite3.Connection, name: str, split: str = "", signal: int | None = None) -> SeriesState:
    """Return the state of a series from the rows that are there.

    Args:
        connection: that writes the run.
        name: of the series.
        split: of a scalar.
        signal: number of a signal; None for a scalar.
    """
    key = (name, split)
    rows, of = ("vectors WHERE signal = ?", (signal,)) if signal is not None else (_SCALAR_ROWS, key)
    column, dtype = ("value", "<f8") if signal is None else ("data", "<f4")
    (last,) = connection.execute(f"SELECT max(step) FROM {rows}", of).fetchone()
    state = SeriesState(last, series_seed(name, split))

    def after(level: int) -> int:
        """Return the last step that the buckets of a level hold."""
        row = connection.execute(f"{_ROLLUP_ROWS} ORDER BY first_step DESC LIMIT 1", (*key, level)).fetchone()
        return _FIRST if row is None else row[1]

    def values(cell: bytes | float | None) -> Values:
        """Return a recorded cell as numbers."""
        return np.frombuffer(cell, dtype) if isinstance(cell, bytes) else np.array([np.nan if cell is None else cell])

    later = connection.execute(f"SELECT step, {column} FROM {rows} AND step > ? ORDER BY step", (*of, after(LEVELS[0])))
    state.rollup.restore(0, [Bucket(step, step, *(values(cell),) * 3) for step, cell in later])
    for index in range(1, len(LEVELS)):
        buckets = connection.execute(
            f"{_ROLLUP_ROWS} AND first_step > ? ORDER BY first_step", (*key, LEVELS[index - 1], after(LEVELS[index]))
        )
        state.rollup.restore(index, [Bucket(first, end, *map(values, blobs)) for first, end, *blobs in buckets])
    return state
