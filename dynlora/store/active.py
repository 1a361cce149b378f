"""Which runs of a folder are not over: an empty file `.active/<id>` each, so that nobody has to open 1,000 runs.

The files are hints. What counts is the status in `run.db`; a hint without such a run is removed by whoever finds it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dynlora.errors import ConfigError
from dynlora.store.schema import check_run_id

ACTIVE_DIR = ".active"


def mark_active(runs_dir: Path, run_id: str) -> None:
    """Note that a run is queued or running."""
    folder = runs_dir / ACTIVE_DIR
    folder.mkdir(parents=True, exist_ok=True)
    (folder / check_run_id(run_id)).touch()


def unmark_active(runs_dir: Path, run_id: str) -> None:
    """Note that a run is over; no error when it was not marked."""
    with suppress(OSError):
        (runs_dir / ACTIVE_DIR / check_run_id(run_id)).unlink()


def active_ids(runs_dir: Path) -> list[str]:
    """Return the marked ids, in order."""
    found: list[str] = []
    with suppress(OSError):
        for entry in (runs_dir / ACTIVE_DIR).iterdir():
            with suppress(ConfigError):
                found.append(check_run_id(entry.name))
    return sorted(found)
