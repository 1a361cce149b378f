"""Which runs there are and the state of each, from `meta`, `status` and the last evaluations.

No pandas, so the command line is quick. What a finished run says is kept in this process and, in a large folder, in
a file beside the runs, so that 1,000 runs are listed by looking at 1,000 files, not by opening 1,000 databases.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

from pydantic import AfterValidator, Field, Strict

from dynlora.errors import DynloraError
from dynlora.store import meta as store_meta
from dynlora.store import schema
from dynlora.store.connection import header_and_version, is_wal
from dynlora.store.meta import DECODE, is_count, kind_of, metrics_of
from dynlora.store.notes import NO_NOTES, Notes, read_notes
from dynlora.store.reader import RunReader
from dynlora.store.record import Record
from dynlora.store.summary import RunSummary

LISTING_NAME = ".listing.json"
SAVE_AFTER = 50
"""Rows that are new to the file before it is written again."""

_MAX_ROWS = 20_000
_WHOLE = ("step", "max_steps")
_TEXTS = ("error", "trend_of")


class Facts(NamedTuple):
    """What was read of a run: `status` (its state, and its trend) and some of its `meta`."""

    status: dict[str, Any]
    meta: dict[str, Any]


def _ended(status: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a run of every one that is over; each value is of the kind a run would have given."""
    trend = status.get("trend")
    values = cast(list[Any], trend) if isinstance(trend, list) else [None]
    fits = (
        status.get("status") in schema.FINAL_STATES
        and all(is_count(status.get(key)) for key in _WHOLE)
        and all(isinstance(status.get(key), str | None) for key in _TEXTS)
        and len(values) < 1000
        and all(isinstance(value, float) and math.isfinite(value) for value in values)
    )
    if not fits:
        raise ValueError("no status of a run that has ended")
    return {**status, "heartbeat_age_s": None, "stalled_s": None, "other_host": False}


Row = tuple[str, Annotated[dict[str, Any], AfterValidator(_ended)], dict[str, Any]]
"""Version of a run's file, its status and its meta."""


class Listing(Record):
    """What the finished runs of a folder said, by run id; of another form, nothing is taken."""

    MAX_BYTES: ClassVar[int] = 64 * 2**20
    KEEPS_REST: ClassVar[bool] = True

    form: Literal[5]
    rows: dict[str, Annotated[Row, Strict(False)]] = Field(default={}, max_length=_MAX_ROWS)


class KeptRows:
    """The kept facts of one runs folder."""

    def __init__(self, runs_dir: Path) -> None:
        """Read what was kept, if anything was."""
        self._path = runs_dir / LISTING_NAME
        listing = Listing.read(self._path)
        self._rows = {} if listing is None else dict(listing.rows)
        self._unsaved = 0

    def find(self, run_id: str, version: str) -> Facts | None:
        """Return what was kept of a run whose file is still of that version."""
        entry = self._rows.get(run_id)
        return Facts(*entry[1:]) if entry is not None and entry[0] == version else None

    def keep(self, run_id: str, version: str, facts: Facts) -> None:
        """Keep what a finished run says."""
        if len(self._rows) >= _MAX_ROWS:
            self._rows.clear()
        self._rows[run_id] = (version, facts.status, facts.meta)
        self._unsaved += 1

    def save(self, present: set[str]) -> None:
        """Write the file when many rows are new to it; a folder that cannot be written is left as it is.

        Args:
            present: ids of the runs that are there; what is kept of others is forgotten.
        """
        if self._unsaved < SAVE_AFTER:
            return
        self._unsaved = 0
        self._rows = {run_id: entry for run_id, entry in self._rows.items() if run_id in present}
        with suppress(OSError, ValueError):
            listing = Listing.model_construct(form=5, rows=self._rows)  # one odd row must not cost the others
            listing.write(self._path)


KEYS = (
    "name",
    "strategy",
    "model",
    "data",
    "seed",
    "created",
    "metrics",
    "best",
    "params",
    "time",
    "fidelity",
    "metric",
    "config",
    "task",
)
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
    entries = _kept.get(str(runs_dir))
    if entries is None:
        if len(_kept) >= _MAX_FOLDERS:
            _kept.clear()
        entries = _kept[str(runs_dir)] = KeptRows(runs_dir)
    folders = run_folders(runs_dir)
    rows = [run_row(folder, entries) for folder in folders]
    entries.save({folder.name for folder in folders})
    return rows


def run_row(folder: Path, cache: KeptRows) -> dict[str, Any]:
    """Return the row of one run, see `run_rows`; what a finished run says comes from `cache` while it is current."""
    try:
        if folder.is_symlink():
            raise DynloraError("its folder is a link to another place; dynlora does not follow it")
        head, version = header_and_version(schema.database(folder))
        facts = None if is_wal(head) else cache.find(folder.name, version)
        if facts is None:
            facts = _read(folder)
            if facts.status["status"] in schema.FINAL_STATES and not is_wal(head):
                cache.keep(folder.name, version, facts)
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
    folders: list[Path] = []
    for entry in entries:
        known = entry.is_dir() and os.path.lexists(os.path.join(entry.path, schema.DB_NAME))
        if not entry.name.startswith(".") and (known or _LOOKS_LIKE_RUN.match(entry.name)):
            folders.append(Path(entry.path))
    return folders


def _read(folder: Path) -> Facts:
    with RunReader(folder) as reader:
        status, meta = reader.status(), reader.meta((*KEYS, "kind"))
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
    candidates = [name for name in (meta.get("metric"), "accuracy") if isinstance(name, str)]
    names = [name for name in (*candidates, *metrics) if name in metrics and name != "loss"]
    return names[0] if names else ""


def _row(folder: Path, facts: Facts, notes: Notes, reason: str | None = None) -> dict[str, Any]:
    meta, status = facts.meta, facts.status
    name = store_meta.text(meta.get("name")) or folder.name
    values = {key: meta.get(key) for key in KEYS} | {"id": folder.name, "name": name, "status": status["status"]}
    summary = vars(RunSummary.model_validate(values))
    own = {key: status.get(key) for key in ("step", "max_steps", "error", "heartbeat_age_s", "stalled_s")}
    return {
        "id": folder.name,
        **{key: summary[key] for key in KEYS},
        **own,
        "status": status["status"],
        "metric": deciding_metric(meta) or None,
        "folder": str(folder),
        "reason": reason,
        "other_host": status.get("other_host", False),
        "kind": kind_of(meta),
        "tags": list(notes.tags),
        "note": notes.note,
        "trend_of": status.get("trend_of") or None,
        "trend": status.get("trend") or [],
    }
