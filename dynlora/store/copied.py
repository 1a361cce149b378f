"""What a run that was fetched from another place says of that: `copied-from.json` beside `run.db`.

As little trusted as the rest of a run: what cannot be read counts as no such file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dynlora.errors import ConfigError
from dynlora.plain_text import printable
from dynlora.safe_files import write_text
from dynlora.store.kinds import FROM_EVENTS, continues_from_events
from dynlora.store.plain_values import read_checked
from dynlora.store.reader import RunReader

COPIED_NAME = "copied-from.json"
FORMAT = 1
MAX_BYTES = 65_536
CHECKPOINT_STATES = ("checkpoint/state.json", ".checkpoint.old/state.json")
"""Where a checkpoint is: its place, or, after a crash between two renames, the old one."""


@dataclass(frozen=True)
class Copied:
    """Where a run was fetched from.

    Attributes:
        url: of the run, without what is secret of it.
        revision: digest of all that was fetched.
        fingerprint: of the files as they were put here, see `fingerprint`.
    """

    url: str
    revision: str
    fingerprint: str


def write_copied(folder: Path, copied: Copied) -> None:
    """Say where a run was fetched from.

    Raises:
        OSError: when it cannot be written.
    """
    write_text(folder / COPIED_NAME, json.dumps({"format": FORMAT, **asdict(copied)}, indent=1) + "\n")


def read_copied(folder: Path) -> Copied | None:
    """Return where a run was fetched from; None for one that was made here."""
    return read_checked(folder / COPIED_NAME, MAX_BYTES, _checked)


def _checked(found: Mapping[str, Any]) -> Copied:
    if found["format"] != FORMAT:
        raise ValueError("another format")
    return Copied(*(printable(found[key], 2000) for key in ("url", "revision", "fingerprint")))


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
    copied = read_copied(folder)
    if copied is None or not opened or any((folder / name).is_file() for name in CHECKPOINT_STATES):
        return
    with RunReader(folder) as reader:
        if continues_from_events(reader.meta(("kind", FROM_EVENTS))):
            return
    raise ConfigError(
        f"resume {folder.name}: the run was fetched from {copied.url} without a checkpoint; send it there again with "
        "--with-checkpoint and fetch it again, or start a new run"
    )
