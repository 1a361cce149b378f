"""What finished runs said, kept so that a list of 1,000 runs need not open 1,000 databases.

Kept in the process and, once a folder holds many, in `.listing.json` of the runs folder. The file is a convenience
that may be deleted at any time, and it is trusted no more than the runs beside it: a row is used only while the run's
file is the very one it was read from, and its values pass the same checks as those of a run.
"""

from __future__ import annotations

import json
import math
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from dynlora.errors import CorruptRunError
from dynlora.safe_files import read_plain
from dynlora.store import jsontext, schema
from dynlora.store.meta import is_count

LISTING_NAME = ".listing.json"
SAVE_AFTER = 50
"""Rows that are new to the file before it is written again."""

_FORM = 5
_MAX_BYTES = 64 * 2**20
_MAX_ROWS = 20_000
_WHOLE = ("step", "max_steps")
_TEXTS = ("error", "trend_of")


class Facts(NamedTuple):
    """What was read of a run: `status` (where it stands, and its trend) and some of its `meta`."""

    status: dict[str, Any]
    meta: dict[str, Any]


class KeptRows:
    """The kept facts of one runs folder."""

    def __init__(self, runs_dir: Path) -> None:
        """Read what was kept, if anything was."""
        self._path = runs_dir / LISTING_NAME
        self._rows = _read(self._path)
        self._unsaved = 0

    def find(self, run_id: str, version: str) -> Facts | None:
        """Return what was kept of a run whose file is still of that version."""
        kept = self._rows.get(run_id)
        return kept[1] if kept is not None and kept[0] == version else None

    def keep(self, run_id: str, version: str, facts: Facts) -> None:
        """Keep what a finished run says."""
        if len(self._rows) >= _MAX_ROWS:
            self._rows.clear()
        self._rows[run_id] = (version, facts)
        self._unsaved += 1

    def save(self, present: set[str]) -> None:
        """Write the file when many rows are new to it; a folder that cannot be written is left as it is.

        Args:
            present: ids of the runs that are there; what is kept of others is forgotten.
        """
        if self._unsaved < SAVE_AFTER:
            return
        self._unsaved = 0
        self._rows = {run_id: kept for run_id, kept in self._rows.items() if run_id in present}
        rows = {run_id: [version, *facts] for run_id, (version, facts) in self._rows.items()}
        aside = self._path.with_name(f"{LISTING_NAME}.{secrets.token_hex(4)}")
        with suppress(OSError, ValueError):
            try:
                text = json.dumps({"form": _FORM, "rows": rows}, ensure_ascii=False, allow_nan=False)
                aside.write_text(text, "utf-8")
                aside.replace(self._path)
            finally:
                aside.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, tuple[str, Facts]]:
    text = read_plain(path, _MAX_BYTES)
    if text is None:
        return {}
    try:
        found = jsontext.load_object(text)
    except CorruptRunError:
        return {}
    rows = found.get("rows")
    if found.get("form") != _FORM or not isinstance(rows, dict):
        return {}
    items = list(cast(dict[str, Any], rows).items())[:_MAX_ROWS]
    return {run_id: kept for run_id, value in items if (kept := _sound(value)) is not None}


def _sound(value: Any) -> tuple[str, Facts] | None:
    """Return a kept row when each of its values is of the kind a run would have given."""
    if not isinstance(value, list) or len(cast(list[Any], value)) != 3:
        return None
    version, status, meta = cast(list[Any], value)
    if not isinstance(version, str) or not isinstance(status, dict) or not isinstance(meta, dict):
        return None
    status = cast(dict[str, Any], status)
    trend = status.get("trend")
    kinds_fit = (
        status.get("status") in schema.FINAL_STATES
        and all(is_count(status.get(key)) for key in _WHOLE)
        and all(isinstance(status.get(key), str | None) for key in _TEXTS)
        and isinstance(trend, list)
        and all(isinstance(item, float) and math.isfinite(item) for item in cast(list[Any], trend)[:1000])
        and len(cast(list[Any], trend)) < 1000
    )
    status |= {"heartbeat_age_s": None, "stalled_s": None, "other_host": False}  # as of every run that is over
    return (version, Facts(status, cast(dict[str, Any], meta))) if kinds_fit else None
