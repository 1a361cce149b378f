"""Which runs there are and how each stands, from `meta` and `status` alone; no pandas, so the command line is quick."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dynlora.errors import DynloraError
from dynlora.store import schema
from dynlora.store.connection import header, is_wal
from dynlora.store.reader import RunReader

KEYS = ("name", "strategy", "model", "data", "seed", "created", "metrics", "best", "params", "time", "fidelity")
"""Meta keys that a row of the list shows."""

_LOOKS_LIKE_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}\Z")
_finished: dict[str, tuple[bytes, dict[str, Any]]] = {}
_MAX_KEPT = 20_000


def run_rows(runs_dirs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Return one dict per run, newest first; a run that cannot be read has status `corrupt` and a reason.

    Rows of finished runs are kept in the process. The first 100 bytes of a finished `run.db` hold SQLite's change
    counter, which every later write raises, so a kept row is used only while the store itself says it is current.

    Args:
        runs_dirs: one folder of runs, or several; missing ones are empty.
    """
    folders = [runs_dirs] if isinstance(runs_dirs, str | os.PathLike) else runs_dirs
    rows = [run_row(folder) for runs_dir in folders for folder in _run_folders(Path(os.path.realpath(runs_dir)))]
    return sorted(rows, key=lambda row: (row["created"] or 0.0, row["id"]), reverse=True)


def run_row(folder: Path) -> dict[str, Any]:
    """Return the row of one run, see `run_rows`."""
    try:
        if folder.is_symlink():
            raise DynloraError("its folder is a link to another place; dynlora does not follow it")
        head = header(schema.database(folder))
        kept = _finished.get(str(folder))
        if kept is not None and kept[0] == head:
            return dict(kept[1])
        row = _read(folder)
    except DynloraError as error:
        return _row(folder, {}, status="corrupt", reason=str(error))
    if row["status"] in schema.FINAL_STATES and not is_wal(head):
        if len(_finished) >= _MAX_KEPT:
            _finished.clear()
        _finished[str(folder)] = (head, dict(row))
    return row


def _run_folders(runs_dir: Path) -> list[Path]:
    try:
        entries = sorted(os.scandir(runs_dir), key=lambda entry: entry.name)
    except OSError:
        return []
    found: list[Path] = []
    for entry in entries:
        known = entry.is_dir() and os.path.lexists(os.path.join(entry.path, schema.DB_NAME))
        if not entry.name.startswith(".") and (known or _LOOKS_LIKE_RUN.match(entry.name)):
            found.append(Path(entry.path))
    return found


def _read(folder: Path) -> dict[str, Any]:
    with RunReader(folder) as reader:
        status, meta = reader.status(), reader.meta(KEYS)
    return _row(
        folder,
        meta,
        status=status.status,
        step=status.step,
        max_steps=status.max_steps,
        error=status.error,
        heartbeat_age_s=status.heartbeat_age_s,
        stalled_s=status.stalled_s,
        other_host=status.other_host,
    )


def _row(folder: Path, meta: dict[str, Any], *, status: str, reason: str | None = None, **facts: Any) -> dict[str, Any]:
    created, seed = meta.get("created"), meta.get("seed")
    return {
        "id": folder.name,
        "name": _text(meta, "name") or folder.name,
        "status": status,
        "strategy": _text(meta, "strategy"),
        "model": _text(meta, "model"),
        "data": _text(meta, "data"),
        "seed": seed if isinstance(seed, int) else None,
        "step": facts.get("step"),
        "max_steps": facts.get("max_steps"),
        "metrics": numbers(meta.get("metrics")),
        "created": float(created) if isinstance(created, int | float) else None,
        "folder": str(folder),
        "error": facts.get("error"),
        "reason": reason,
        "heartbeat_age_s": facts.get("heartbeat_age_s"),
        "stalled_s": facts.get("stalled_s"),
        "other_host": facts.get("other_host", False),
        "fidelity": _text(meta, "fidelity"),
        "best": table(meta.get("best")),
        "params": table(meta.get("params")),
        "time": table(meta.get("time")),
    }


def numbers(value: Any) -> dict[str, float | None]:
    """Return the numeric entries of a JSON object, null for NaN; empty when it is no object."""
    return {
        key: item
        for key, item in table(value).items()
        if item is None or (isinstance(item, int | float) and not isinstance(item, bool))
    }


def table(value: Any) -> dict[str, Any]:
    """Return a JSON object, empty when the value is none."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _text(meta: dict[str, Any], key: str) -> str | None:
    value = meta.get(key)
    return None if value is None else str(value)
