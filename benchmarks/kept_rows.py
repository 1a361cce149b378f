"""What a benchmark keeps while it works, so that one that was ended continues; what a kill tore is dropped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora.safe_files import write_text


def digest(*values: Any) -> str:
    """Return what changes when any of some plain values does: 16 characters."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, none where there is no file; a last line that was never ended is cut off."""
    if not file.exists():
        return []
    whole, newline, torn = file.read_bytes().rpartition(b"\n")
    if torn:
        with file.open("r+b") as lines:
            lines.truncate(len(whole) + len(newline))
    return [json.loads(line) for line in whole.splitlines()]


def add_row(file: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a file, which need not exist."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")


def read_found(file: Path) -> dict[str, Any]:
    """Return the object that a file holds; an empty one where there is no file, or one that was torn."""
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        print(f"{file.name} was not written to its end: it is left out", flush=True)
        return {}


def write_found(file: Path, rows: Mapping[str, Any]) -> None:
    """Write an object whole or not at all."""
    write_text(file, json.dumps(rows))
