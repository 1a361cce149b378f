"""Every row of a run, out of a store and into a new one: what a run that travels is made of.

A row leaves only as it was written: cells are checked for their kind, and rows with a checksum against it. A new store
is made by the migrations, so that its schema is ours whoever the rows come from.
"""

from __future__ import annotations

import errno
import io
import json
import math
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dynlora.errors import ConfigError, CorruptRunError
from dynlora.store import jsontext, schema
from dynlora.store.connection import open_reader, unreadable
from dynlora.store.series import bucket_crc, checked_scalars, vector_crc

if TYPE_CHECKING:
    import pandas as pd


FORMATS = ("csv", "json", "parquet")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def encode(frame: pd.DataFrame, format: str) -> bytes:
    """Return a frame in a format: `csv`, `json` (a list of records, NaN as null) or `parquet`.

    A text cell or heading of a CSV that a spreadsheet would run as a formula gets a leading apostrophe.

    Raises:
        ConfigError: when the format is unknown.
    """
    if format == "csv":
        return _guarded(frame).to_csv(index=False, lineterminator="\n").encode("utf-8")
    if format == "json":
        names = [str(name) for name in frame.columns]
        rows = zip(*(frame[name].tolist() for name in frame.columns), strict=True)
        records = [dict(zip(names, map(_finite, row), strict=True)) for row in rows]
        return (json.dumps(records, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")
    if format == "parquet":
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        return buffer.getvalue()
    raise ConfigError(f"format {format!r} of a table: use one of {', '.join(FORMATS)}")


def _guarded(frame: pd.DataFrame) -> pd.DataFrame:
    safe = frame.rename(columns=_cell)
    for name in safe.columns:
        if safe[name].dtype.kind not in "iufbM":
            safe[name] = safe[name].map(_cell)
    return safe


def _cell(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA) else value


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Row = tuple[Any, ...]
BATCH_ROWS = 2_000
BATCH_BYTES = 8 * 2**20
"""Of the blobs and texts of a batch, about."""


class Column(NamedTuple):
    """A column: `kind` is text, whole, real or blob; `optional` cells may be NULL."""

    name: str
    kind: str
    optional: bool = False


def _columns(text: str) -> tuple[Column, ...]:
    """Return columns written as `name:kind`, with a question mark where a cell may be NULL."""
    parts = (part.partition(":") for part in text.split())
    return tuple(Column(name, kind.rstrip("?"), kind.endswith("?")) for name, _, kind in parts)


TABLES: dict[str, tuple[Column, ...]] = {
    "meta": _columns("key:text value:text"),
    "status": _columns(
        "state:text step:whole max_steps:whole heartbeat:real pid:whole? process_start:real? host:text? error:text? "
        "opened:whole"
    ),
    "modules": _columns("position:whole name:text layer:whole? kind:text d_in:whole d_out:whole max_rank:whole"),
    "signals": _columns("id:whole name:text axis:text unit:text width:whole"),
    "vectors": _columns("signal:whole step:whole data:blob crc:whole"),
    "scalars": _columns("name:text split:text step:whole value:real? crc:whole?"),
    "rollups": _columns(
        "name:text split:text level:whole first_step:whole last_step:whole low:blob high:blob last:blob crc:whole"
    ),
    "groups": _columns("position:whole name:text"),
    "examples": _columns("position:whole text:text text_pair:text? label:text? grp:text? x:real? y:real?"),
    "events": _columns("seq:whole time:real step:whole kind:text modules:text payload:text crc:whole?"),
    "logs": _columns("seq:whole time:real level:text message:text"),
    "system": _columns("time:real name:text value:real"),
    "sequences": _columns("name:text seq:whole"),
}
"""The tables of STORE.md; `sequences` is SQLite's own count of events and lines, so that no number is used twice."""

SERIES = ("vectors", "scalars", "rollups")
"""The tables that grow with the steps."""

MAX_ROWS = {name: 50_000_000 if name in SERIES else schema.MAX_ROWS for name in TABLES}
"""Of a table that is read into a new store."""

_ORDER = {
    "meta": "key",
    "status": "1",
    "modules": "position",
    "signals": "id",
    "vectors": "signal, step",
    "scalars": "name, split, step",
    "rollups": "name, split, level, first_step",
    "groups": "position",
    "examples": "position",
    "events": "seq",
    "logs": "seq",
    "system": "rowid",
    "sequences": "name",
}
_SOURCE = {"sequences": "sqlite_sequence"}
_COUNTED = ("events", "logs")
_DISK = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")


class Snapshot(NamedTuple):
    """A run as it is at one moment: its folder, and the copy that is read."""

    folder: Path
    connection: sqlite3.Connection


@contextmanager
def at_one_moment(folder: Path, spare: Path) -> Generator[Snapshot]:
    """Lend a copy of a run as it is at one moment: its writer waits for nobody who reads it.

    Args:
        folder: of the run.
        spare: an empty folder for the copy.

    Raises:
        RunNotFoundError: when the folder holds no run.
        CorruptRunError: when it cannot be read.
        OSError: when the copy cannot be written.
    """
    with closing(open_reader(folder)) as source, closing(sqlite3.connect(spare / schema.DB_NAME)) as target:
        try:
            source.backup(target)  # every page in one step: one moment of the run
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "").startswith(_DISK):
                raise OSError(errno.EIO, str(error)) from None
            raise unreadable(folder, error) from None
        except sqlite3.Error as error:
            raise unreadable(folder, error) from None
    with closing(open_reader(spare)) as connection:
        yield Snapshot(folder, connection)


def batches(run: Snapshot, table: str) -> Iterator[list[Row]]:
    """Yield the rows of a table in their order, some thousand at a time.

    Raises:
        CorruptRunError: when a cell is of another kind, or a row is not as it was written.
    """
    columns = TABLES[table]
    names = [column.name for column in columns]
    if names[-1] == "crc" and columns[-1].optional:
        names[-1] = schema.crc_column(run.connection)
    query = f"SELECT {', '.join(names)} FROM {_SOURCE.get(table, table)} ORDER BY {_ORDER[table]}"
    make_check = _CHECKS.get(table, lambda _: lambda rows: None)
    with jsontext.Guard(run.folder):
        check = make_check(run.connection)
        for rows in _some(run.connection.execute(query)):
            check_cells(table, rows)
            check(rows)
            yield rows


def _some(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(cell) for cell in row if isinstance(cell, str | bytes))
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def check_cells(table: str, rows: list[Row]) -> None:
    """Check the kind and size of every cell.

    Raises:
        CorruptRunError: when one is not what its column holds.
    """
    for place, column in enumerate(TABLES[table]):
        fits = _FITS[column.kind]
        for row in rows:
            cell = row[place]
            if not (fits(cell) if cell is not None else column.optional):
                raise CorruptRunError(f"a cell of table {table}, column {column.name}, cannot be read")


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "text": lambda cell: type(cell) is str and len(cell) <= schema.MAX_TEXT_BYTES,
    "whole": lambda cell: type(cell) is int,
    "real": lambda cell: type(cell) is float,
    "blob": lambda cell: type(cell) is bytes and len(cell) <= schema.MAX_CELL_BYTES,
}


def _vectors(connection: sqlite3.Connection) -> Callable[[list[Row]], None]:
    signals = {
        number: (name, width) for number, name, width in connection.execute("SELECT id, name, width FROM signals")
    }

    def check(rows: list[Row]) -> None:
        for signal, step, data, crc in rows:
            name, width = signals.get(signal, ("", 0))
            if len(data) != 4 * width or vector_crc(step, data) != crc:
                raise CorruptRunError(f"a vector of signal {name!r} is damaged")

    return check


def _scalars(_: sqlite3.Connection) -> Callable[[list[Row]], None]:
    def check(rows: list[Row]) -> None:
        for (name, split), series in groupby(rows, key=lambda row: row[:2]):
            checked_scalars(name, split, [row[2:] for row in series])

    return check


def _rollups(_: sqlite3.Connection) -> Callable[[list[Row]], None]:
    def check(rows: list[Row]) -> None:
        for name, _, _, first, last, *blobs, crc in rows:
            if bucket_crc(first, last, *blobs) != crc:
                raise CorruptRunError(f"a roll-up of {name!r} is damaged")

    return check


def _events(_: sqlite3.Connection) -> Callable[[list[Row]], None]:
    def check(rows: list[Row]) -> None:
        for row in rows:
            jsontext.event(row)

    return check


_CHECKS: Mapping[str, Callable[[sqlite3.Connection], Callable[[list[Row]], None]]] = {
    "vectors": _vectors,
    "scalars": _scalars,
    "rollups": _rollups,
    "events": _events,
}


def build(folder: Path, tables: Mapping[str, Iterable[list[Row]]], *, is_copy: bool) -> None:
    """Make a new `run.db` in a folder from the rows of tables, which nobody has to trust.

    Args:
        folder: that has none yet.
        tables: batches of rows by table, in the order of `TABLES`; a table that is left out is empty.
        is_copy: a run that its process still trains becomes an interrupted one: no process trains the copy.

    Raises:
        CorruptRunError: when rows are not such as a run may have.
        OSError: when the disk refuses.
    """
    with closing(sqlite3.connect(folder / schema.DB_NAME, isolation_level=None)) as connection:
        try:
            connection.execute(f"PRAGMA page_size={schema.PAGE_BYTES}")
            connection.execute("BEGIN IMMEDIATE")
            schema.migrate(connection)
            for table, rows in tables.items():
                _fill(connection, table, rows)
            if is_copy:
                connection.execute(
                    "UPDATE status SET pid = NULL, process_start = NULL, host = NULL WHERE state = 'running'"
                )
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise OSError(errno.EIO, str(error)) from None
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise CorruptRunError(f"the rows of the run do not fit together ({error})") from None


def _fill(connection: sqlite3.Connection, table: str, rows: Iterable[list[Row]]) -> None:
    count = 0
    for batch in rows:
        count += len(batch)
        if count > MAX_ROWS[table]:
            raise CorruptRunError(f"table {table} has more than {MAX_ROWS[table]:,} rows, the limit of a run")
        check_cells(table, batch)
        if table == "sequences":
            _count_on(connection, batch)
        else:
            connection.executemany(_insert(table), batch)


def _insert(table: str) -> str:
    columns = [column.name for column in TABLES[table]]
    first, mark = ("id, ", "1, ") if table == "status" else ("", "")
    return f"INSERT INTO {table} ({first}{', '.join(columns)}) VALUES ({mark}{', '.join('?' * len(columns))})"


def _count_on(connection: sqlite3.Connection, rows: list[Row]) -> None:
    """Let the numbers of events and lines continue where they were, also where the last of them were deleted."""
    for name, last in rows:
        if name not in _COUNTED:
            raise CorruptRunError("the count of a table that has none cannot be read")
        connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
        connection.execute(
            f"INSERT INTO sqlite_sequence VALUES (?, (SELECT max(coalesce(max(seq), 0), ?) FROM {name}))", (name, last)
        )
