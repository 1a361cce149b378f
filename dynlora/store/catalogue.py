"""Which runs there are and how each stands, from `meta`, `status` and the last evaluations.

No pandas, so the command line is quick. What a finished run says is kept in this process and, in a large folder, in
a file beside the runs, so that 1,000 runs are listed by looking at 1,000 files, not by opening 1,000 databases.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dynlora.errors import DynloraError
from dynlora.store import meta as store_meta
from dynlora.store import schema
from dynlora.store.connection import header_and_version, is_wal
from dynlora.store.decode_metrics import metrics_of
from dynlora.store.kinds import DECODE, kind_of
from dynlora.store.notes import NO_NOTES, Notes, read_notes
from dynlora.store.reader import RunReader
from dynlora.store.row_cache import Facts, KeptRows

KEYS = (
    "name", "strategy", "model", "data", "seed", "created", "metrics", "best", "params", "time", "fidelity", "metric",
    "config", "kind", "task",
)  # fmt: skip
"""Meta keys that a row of the list shows."""

TREND_POINTS = 24
"""Most values of a row's trend: the last evaluations."""

_LOOKS_LIKE_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}\Z")
_MAX_FOLDERS = 20
_kept: dict[str, KeptRows] = {}


def run_rows(runs_dirs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Return one dict per run, newest first; a run that cannot be read has status `corrupt` and a reason.

    Args:
        runs_dirs: one folder of runs, or several; missing ones are empty.
    """
    folders = [runs_dirs] if isinstance(runs_dirs, str | os.PathLike) else runs_dirs
    rows = [row for folder in folders for row in _rows_of(Path(os.path.realpath(folder)))]
    return sorted(rows, key=lambda row: (row["created"] or 0.0, row["id"]), reverse=True)


def _rows_of(runs_dir: Path) -> list[dict[str, Any]]:
    kept = _kept.get(str(runs_dir))
    if kept is None:
        if len(_kept) >= _MAX_FOLDERS:
            _kept.clear()
        kept = _kept[str(runs_dir)] = KeptRows(runs_dir)
    folders = run_folders(runs_dir)
    rows = [run_row(folder, kept) for folder in folders]
    kept.save({folder.name for folder in folders})
    return rows


def run_row(folder: Path, kept: KeptRows) -> dict[str, Any]:
    """Return the row of one run, see `run_rows`; what a finished run says comes from `kept` while it is current."""
    try:
        if folder.is_symlink():
            raise DynloraError("its folder is a link to another place; dynlora does not follow it")
        head, version = header_and_version(schema.database(folder))
        facts = None if is_wal(head) else kept.find(folder.name, version)
        if facts is None:
            facts = _read(folder)
            if facts.status["status"] in schema.FINAL_STATES and not is_wal(head):
                kept.keep(folder.name, version, facts)
        return _row(folder, facts, read_notes(folder))
    except DynloraError as error:
        reason = str(error)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:  # one odd run hides no other
        reason = f"run {folder.name}: its description cannot be shown ({type(error).__name__})"
    return _row(folder, Facts({"status": "corrupt"}, {}), NO_NOTES, reason=reason)


def run_folders(runs_dir: Path) -> list[Path]:
    """Return the folders of a runs folder that are runs or look like some, by name; none where it cannot be read."""
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


def _read(folder: Path) -> Facts:
    with RunReader(folder) as reader:
        status, meta = reader.status(), reader.meta(KEYS)
        trend_of, trend = _trend(reader, meta, status.step)
        if kind_of(meta) == DECODE:  # its points follow each other, and are no trend
            meta["metrics"], trend_of, trend = metrics_of(reader.meta(["decode_results"])), "", []
    facts = {
        "status": status.status,
        "step": status.step,
        "max_steps": status.max_steps,
        "error": status.error,
        "heartbeat_age_s": None if status.status in schema.FINAL_STATES else status.heartbeat_age_s,
        "stalled_s": status.stalled_s,
        "other_host": status.other_host,
        "trend_of": trend_of,
        "trend": trend,
    }
    return Facts(facts, meta)


def _trend(reader: RunReader, meta: dict[str, Any], step: int) -> tuple[str, list[float]]:
    """Return (what, values): the last evaluations of the deciding metric, before the second the training loss."""
    name = deciding_metric(meta)
    values = reader.last_scalars(name, "validation", TREND_POINTS) if name else []
    if len(values) > 1 or not step:
        return name, values
    return "training loss", reader.last_scalars("loss", "train", TREND_POINTS)


def deciding_metric(meta: dict[str, Any]) -> str:
    """Return the name of the metric that decides, empty before the first evaluation."""
    metrics = store_meta.numbers(meta.get("metrics"))
    wanted = [name for name in (meta.get("metric"), "accuracy") if isinstance(name, str)]
    names = [name for name in (*wanted, *metrics) if name in metrics and name != "loss"]
    return names[0] if names else ""


def _row(folder: Path, facts: Facts, notes: Notes, reason: str | None = None) -> dict[str, Any]:
    meta, status = facts.meta, facts.status
    texts = {key: store_meta.text(meta.get(key)) for key in ("name", "strategy", "model", "data", "fidelity")}
    return {
        "id": folder.name,
        **texts,
        "name": texts["name"] or folder.name,
        "status": status["status"],
        "seed": store_meta.whole(meta.get("seed")),
        "step": status.get("step"),
        "max_steps": status.get("max_steps"),
        "metrics": store_meta.numbers(meta.get("metrics")),
        "metric": deciding_metric(meta) or None,
        "created": store_meta.moment(meta.get("created")),
        "folder": str(folder),
        "error": status.get("error"),
        "reason": reason,
        "heartbeat_age_s": status.get("heartbeat_age_s"),
        "stalled_s": status.get("stalled_s"),
        "other_host": status.get("other_host", False),
        "best": store_meta.numbers(meta.get("best")),
        "params": store_meta.counts(meta.get("params")),
        "time": store_meta.numbers(meta.get("time")),
        "config": store_meta.config(meta.get("config")),
        "kind": kind_of(meta),
        "task": store_meta.text(meta.get("task")),
        "tags": list(notes.tags),
        "note": notes.note,
        "trend_of": status.get("trend_of") or None,
        "trend": status.get("trend") or [],
    }
