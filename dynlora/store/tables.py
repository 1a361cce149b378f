"""A frame as CSV, JSON or Parquet, safe to open in a spreadsheet."""

from __future__ import annotations

import io
import json
import math
import os
from typing import TYPE_CHECKING, Any

from dynlora.errors import ConfigError
from dynlora.safe_files import write_output

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


def write(frame: pd.DataFrame, path: str | os.PathLike[str], format: str) -> None:
    """Write a frame to a file, aside and then renamed.

    Raises:
        ConfigError: when the format is unknown, or something else than a file is there.
        StorageError: when the file cannot be written.
    """
    write_output(os.fspath(path), encode(frame, format))


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
