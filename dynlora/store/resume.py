"""Cutting a run back to a checkpoint and taking up its series where they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import numpy as np

from dynlora.store.schema import LEVELS
from dynlora.store.series import Bucket, RollUp, series_seed

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


def restore_vectors(connection: sqlite3.Connection, name: str, signal: int) -> SeriesState:
    """Return the state of a signal from the rows that are there."""
    (last,) = connection.execute("SELECT max(step) FROM vectors WHERE signal = ?", (signal,)).fetchone()
    state = SeriesState(last)

    def rows(after: int) -> list[Bucket]:
        later = connection.execute(
            "SELECT step, data FROM vectors WHERE signal = ? AND step > ? ORDER BY step", (signal, after)
        )
        return [Bucket(step, step, *(np.frombuffer(data, "<f4"),) * 3) for step, data in later]

    _restore_levels(connection, state.rollup, name, "", rows(_end(connection, name, "", LEVELS[0])), "<f4")
    return state


def restore_scalars(connection: sqlite3.Connection, name: str, split: str) -> SeriesState:
    """Return the state of a scalar series from the rows that are there."""
    key = (name, split)
    (last,) = connection.execute("SELECT max(step) FROM scalars WHERE name = ? AND split = ?", key).fetchone()
    state = SeriesState(last, series_seed(name, split))
    later = connection.execute(
        "SELECT step, value FROM scalars WHERE name = ? AND split = ? AND step > ? ORDER BY step",
        (*key, _end(connection, name, split, LEVELS[0])),
    )
    rows = [Bucket(step, step, *(np.array([np.nan if value is None else value]),) * 3) for step, value in later]
    _restore_levels(connection, state.rollup, name, split, rows, "<f8")
    return state


def _restore_levels(
    connection: sqlite3.Connection, rollup: RollUp, name: str, split: str, rows: list[Bucket], dtype: str
) -> None:
    rollup.restore(0, rows)
    for index in range(1, len(LEVELS)):
        levels = connection.execute(
            "SELECT first_step, last_step, low, high, last FROM rollups "
            "WHERE name = ? AND split = ? AND level = ? AND first_step > ? ORDER BY first_step",
            (name, split, LEVELS[index - 1], _end(connection, name, split, LEVELS[index])),
        )
        parts = [Bucket(first, end, *(np.frombuffer(blob, dtype) for blob in blobs)) for first, end, *blobs in levels]
        rollup.restore(index, parts)


def _end(connection: sqlite3.Connection, name: str, split: str, level: int) -> int:
    row = connection.execute(
        "SELECT last_step FROM rollups WHERE name = ? AND split = ? AND level = ? ORDER BY first_step DESC LIMIT 1",
        (name, split, level),
    ).fetchone()
    return -(2**62) if row is None else int(row[0])
