"""A stop that was asked for: a small file beside `run.db` that names the process it was asked of.

It makes the state *stopping* visible at once, whoever asked: the command line, a page, or Ctrl-C in the terminal. A
file that names another process than the one that writes the run says nothing.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dynlora.store.process import START_TOLERANCE_S, ProcessNote

STOP_NAME = "stop.json"


def request_stop(folder: Path, pid: int | None, start: float | None) -> None:
    """Note that the process which writes a run was asked to stop; without room for it, only the note is missing.

    Args:
        folder: of the run.
        pid: of the process.
        start: of the process, seconds since the epoch.
    """
    with suppress(OSError, ValueError):  # what a run says of its process is not trusted
        ProcessNote(pid=pid, start=start).write(folder / STOP_NAME)


def stop_requested(folder: Path, pid: int | None, start: float | None) -> bool:
    """Say whether exactly this process was asked to stop."""
    note = ProcessNote.at(folder / STOP_NAME)
    if note.pid != pid or pid is None or start is None or note.start is None:
        return False
    return abs(note.start - start) <= START_TOLERANCE_S


def forget_stop(folder: Path) -> None:
    """Remove the note, once the run has ended or continues in another process."""
    with suppress(OSError):
        (folder / STOP_NAME).unlink()
