"""Checks of queued runs that were asked for: done one at a time, by one process of a runs folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dynlora.errors import RunBusyError, storing
from dynlora.jobs.cli_client import INCOMING_DIR
from dynlora.jobs.spawn import locked, own_folder
from dynlora.safe_files import write_text

ENDING = ".check"
LOCK = "checks.lock"


def ask(root: Path, run_id: str) -> bool:
    """Ask for the check of a queued run, and say whether a process has to be started for it: none is at it.

    Raises:
        StorageError: when the disk does not take the request.
    """
    incoming = own_folder(root, INCOMING_DIR)
    with storing(f"the request to check run {run_id}"):
        write_text(incoming / f"{run_id}{ENDING}", run_id)
    try:
        with locked(incoming / LOCK, 0):
            return True
    except RunBusyError:
        return False


def taken(root: Path) -> Iterator[str]:
    """Yield each run whose check was asked for, oldest first; none where another process is at it.

    Whoever asks writes the request before looking for a process that is at it, so one more look after the lock is free
    misses no request.
    """
    incoming = own_folder(root, INCOMING_DIR)
    with suppress(RunBusyError):
        while _requests(incoming):
            with locked(incoming / LOCK, 0):
                while requests := _requests(incoming):
                    requests[0].unlink(missing_ok=True)
                    yield requests[0].name.removesuffix(ENDING)


def _requests(incoming: Path) -> list[Path]:
    """Return the requests, those of older runs first: ids begin with the time."""
    return sorted(path for path in incoming.iterdir() if path.name.endswith(ENDING))
