"""Cells of a file that may be damaged or hostile: each is checked for its type and size before it is used."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from dynlora.errors import CorruptRunError
from dynlora.store import jsontext, schema
from dynlora.store.connection import unreadable
from dynlora.store.rollups import event_crc
from dynlora.store.rows import Event
from dynlora.text import clean_text

NAME_LIMIT = 4096


class Guard:
    """A `with` block that turns what SQLite and wrong cells raise into errors of ours."""

    def __init__(self, folder: Path) -> None:
        """Guard reads of the run in `folder`."""
        self._folder = folder

    def __enter__(self) -> None:
        """Begin."""
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the error of ours for one of SQLite's."""
        if isinstance(error, sqlite3.Error | MemoryError | OverflowError | UnicodeError):
            raise unreadable(self._folder, error) from None


def text(cell: Any) -> str:
    """Return a text cell."""
    if not isinstance(cell, str):
        raise CorruptRunError("a text of the run is missing")
    if len(cell) > schema.MAX_TEXT_BYTES:
        raise CorruptRunError(f"a text of the run has {len(cell)} characters, over the limit")
    return clean_text(cell)


def name_of(cell: Any) -> str:
    """Return a short text cell."""
    name = text(cell)
    if len(name) > NAME_LIMIT:
        raise CorruptRunError(f"a name in the run has {len(name)} characters, over the limit")
    return name


def optional_text(cell: Any) -> str | None:
    """Return a text cell or None."""
    return None if cell is None else text(cell)


def integer(cell: Any) -> int:
    """Return a whole number cell."""
    if not isinstance(cell, int):
        raise CorruptRunError("a number of the run is missing")
    return cell


def size(cell: Any) -> int:
    """Return a whole number cell that counts something a module has."""
    number = integer(cell)
    if not 0 <= number < schema.MAX_SIZE:
        raise CorruptRunError(f"a size of the run has the invalid value {number}")
    return number


def real(cell: Any) -> float:
    """Return a number cell, NaN for NULL."""
    if cell is None:
        return float("nan")
    if not isinstance(cell, int | float):
        raise CorruptRunError("a number of the run is missing")
    return float(cell)


def positions(cell: Any) -> list[int]:
    """Return a cell that holds a JSON list of module positions."""
    value = jsontext.load(text(cell))
    if not isinstance(value, list) or not all(isinstance(item, int) for item in value):  # pyright: ignore
        raise CorruptRunError("the modules of an event cannot be read")
    return value  # pyright: ignore


def event(row: Sequence[Any]) -> Event:
    """Return an event of its cells (seq, time, step, kind, modules, payload, checksum); version 1 has no checksums."""
    seq, time, step, kind, modules, payload, crc = row
    record = Event(
        integer(seq),
        real(time),
        integer(step),
        name_of(kind),
        positions(modules),
        jsontext.load_object(text(payload)),
    )
    if crc is not None and crc != event_crc(record.time, record.step, kind, modules, payload):
        raise CorruptRunError(f"event {record.seq} of the run is damaged")
    return record
