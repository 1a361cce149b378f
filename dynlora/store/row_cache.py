"""What finished runs said, kept so that a list of 1,000 runs need not open 1,000 databases.

Kept in the process and, once a folder holds many, in `.listing.json` of the runs folder. The file is a convenience
that may be deleted at any time, and it is trusted no more than the runs beside it: a row is used only while the run's
file is the very one it was read from, and its values pass the same checks as those of a run.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

from pydantic import AfterValidator, Field, Strict

from dynlora.store import schema
from dynlora.store.meta import is_count
from dynlora.store.record import Record

LISTING_NAME = ".listing.json"
SAVE_AFTER = 50
"""Rows that are new to the file before it is written again."""

_MAX_ROWS = 20_000
_WHOLE = ("step", "max_steps")
_TEXTS = ("error", "trend_of")


class Facts(NamedTuple):
    """What was read of a run: `status` (where it stands, and its trend) and some of its `meta`."""

    status: dict[str, Any]
    meta: dict[str, Any]


def _ended(status: dict[str, Any]) -> dict[str, Any]:
    """Return where a run stands as of every one that is over; each value is of the kind a run would have given."""
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
        kept = self._rows.get(run_id)
        return Facts(*kept[1:]) if kept is not None and kept[0] == version else None

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
        self._rows = {run_id: kept for run_id, kept in self._rows.items() if run_id in present}
        with suppress(OSError, ValueError):
            listing = Listing.model_construct(form=5, rows=self._rows)  # one odd row must not cost the others
            listing.write(self._path)
