"""Minimum, maximum and last value of every 16, 64, 256, ... rows, written as a run goes.

A reader that draws 400 columns of 200,000 steps then fetches some hundred roll-ups instead of every row.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynlora.store.schema import LEVELS

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
