"""JSON that goes into and comes out of a run: finite numbers, clean text, bounded depth."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dynlora.errors import CorruptRunError
from dynlora.store import schema
from dynlora.store.connection import unreadable
from dynlora.store.rows import Event
from dynlora.store.schema import MAX_JSON_DEPTH, MAX_TEXT_BYTES
from dynlora.store.series import event_crc
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
    value = load(text(cell))
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
        load_object(text(payload)),
    )
    if crc is not None and crc != event_crc(record.time, record.step, kind, modules, payload):
        raise CorruptRunError(f"event {record.seq} of the run is damaged")
    return record


MAX_WHOLE = 2**53
"""Largest whole number that is read: a float holds none beyond it exactly, and nothing here holds one beyond 2**63."""


def dump(value: Any) -> str:
    """Return compact JSON; NaN and infinities become null, numpy numbers and arrays plain ones.

    Raises:
        ValueError: when the value is nested deeper or larger than a reader accepts.
        TypeError: when it holds something JSON has no form for.
    """
    text = json.dumps(_plain(value, 0), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise ValueError(f"a JSON value of {len(text)} characters is too large for the run store")
    return text


def load(text: str) -> Any:
    """Return the value of JSON read from a run; null in the place of a number that nothing here can hold.

    Raises:
        CorruptRunError: when it is no JSON or nested too deeply.
    """
    try:
        return _clean(json.loads(text), 0)
    except (ValueError, RecursionError) as error:
        raise CorruptRunError(f"a JSON value of the run cannot be read ({type(error).__name__})") from None


def load_all(texts: list[str]) -> list[Any]:
    """Return the values of several JSON texts, parsed at once because a list of 1,000 runs parses 10,000 of them.

    Raises:
        CorruptRunError: when one of them is no JSON or nested too deeply.
    """
    values = load("[" + ",".join(texts) + "]")
    if len(values) != len(texts):
        raise CorruptRunError("a JSON value of the run cannot be read")
    return values


def load_object(text: str) -> dict[str, Any]:
    """Return the value of a JSON object read from a run.

    Raises:
        CorruptRunError: when it is anything but an object.
    """
    value = load(text)
    if not isinstance(value, dict):
        raise CorruptRunError("a JSON value of the run is not an object")
    return value  # pyright: ignore[reportUnknownVariableType]


def clip(text: str, limit: int) -> str:
    """Return clean text of at most `limit` characters, its end marked when something was cut."""
    text = clean_text(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _plain(value: Any, depth: int) -> Any:
    if depth > MAX_JSON_DEPTH:
        raise ValueError(f"a JSON value is nested deeper than {MAX_JSON_DEPTH}")
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): _plain(item, depth + 1) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]  # pyright: ignore
    return value


def _clean(value: Any, depth: int) -> Any:
    if depth > MAX_JSON_DEPTH + 1:
        raise ValueError("too deep")
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(key): _clean(item, depth + 1) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]  # pyright: ignore
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        return None
    return value
