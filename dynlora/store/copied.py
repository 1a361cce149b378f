"""What a run that was fetched from another place says of that: `copied-from.json` beside `run.db`.

As little trusted as the rest of a run: what cannot be read counts as no such file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, ClassVar

from dynlora.errors import ConfigError
from dynlora.store.kinds import FROM_EVENTS, continues_from_events
from dynlora.store.reader import RunReader
from dynlora.store.record import Record, one_line

COPIED_NAME = "copied-from.json"
CHECKPOINT_STATES = ("checkpoint/state.json", ".checkpoint.old/state.json")
"""Where a checkpoint is: its place, or, after a crash between two renames, the old one."""


class Copied(Record):
    """Where a run was fetched from.

    Attributes:
        url: of the run, without what is secret of it.
        revision: digest of all that was fetched.
        fingerprint: of the files as they were put here, see `fingerprint`.
    """

    VERSION: ClassVar[int] = 1

    url: Annotated[str, one_line(2000)]
    revision: Annotated[str, one_line(2000)]
    fingerprint: Annotated[str, one_line(2000)]


def fingerprint(folder: Path) -> str:
    """Return what changes when a file of a run is written: a digest of names, sizes and times, no content."""
    rows = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in (COPIED_NAME, "launch.json") and not name.endswith(".lock"):
            found = path.lstat()
            rows.append(f"{name}\0{found.st_size}\0{found.st_mtime_ns}")
    return hashlib.sha256("\n".join(rows).encode("utf-8", "replace")).hexdigest()


def check_can_resume(folder: Path, opened: int) -> None:
    """Refuse to continue a run whose checkpoint was left where it came from: it would start over, its record deleted.

    A run of a kind that continues from its events needs none.

    Args:
        folder: of the run.
        opened: how often a writer opened it; a run that was never opened starts from the beginning anyway.

    Raises:
        ConfigError: one sentence that says what to do instead.
        CorruptRunError: when the run cannot be read.
    """
    copied = Copied.read(folder / COPIED_NAME)
    if copied is None or not opened or any((folder / name).is_file() for name in CHECKPOINT_STATES):
        return
    with RunReader(folder) as reader:
        if continues_from_events(reader.meta(("kind", FROM_EVENTS))):
            return
    raise ConfigError(
        f"resume {folder.name}: the run was fetched from {copied.url} without a checkpoint; send it there again with "
        "--with-checkpoint and fetch it again, or start a new run"
    )
