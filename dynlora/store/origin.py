"""Where an adapter comes from: a small file beside it, and what a run that starts from it keeps of that.

As little trusted as the rest of a run: what cannot be read counts as unknown.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from dynlora.errors import ConfigError, CorruptRunError
from dynlora.store.meta import FROM_EVENTS, continues_from_events, finite, table
from dynlora.store.reader import RunReader
from dynlora.store.record import Count, Record, Which, one_line
from dynlora.store.schema import check_run_id
from dynlora.text import printable

ORIGIN_NAME = "dynlora_origin.json"


class Origin(Record):
    """Where an adapter comes from.

    Attributes:
        run: id of the run that trained it; None for an adapter of another tool.
        name: of that run, or of the adapter's folder.
        which: last or best adapter of the run.
        step: optimizer steps that it had behind it.
        parameters: that were kept.
        of: parameters of the whole adapter; None where that is not known.
    """

    VERSION: ClassVar[int] = 1

    run: Annotated[str, AfterValidator(check_run_id)] | None
    name: Annotated[str, one_line(200)]
    which: Which = "last"
    step: Count = 0
    parameters: Count | None = None
    of: Count | None = None

    @property
    def share(self) -> float | None:
        """The fraction of the whole adapter's parameters that was kept, 0 to 1; None where that is not known."""
        return self.parameters / self.of if self.parameters is not None and self.of else None


def read_origin(folder: Path) -> Origin:
    """Return where the adapter of a folder comes from; without such a file its name is all that is known."""
    return Origin.read(folder / ORIGIN_NAME) or Origin(run=None, name=printable(folder.name))


def origin_meta(origin: Origin) -> dict[str, Any]:
    """Return what a run keeps of the adapter that it starts from, as JSON values."""
    return {**origin.model_dump(), "share": origin.share}


def origin_of(value: Any) -> dict[str, Any] | None:
    """Return what a run says of where it starts from, as `origin_meta` made it; None where it says nothing of use."""
    try:
        origin = Origin.from_values({"format": Origin.VERSION, **table(value)})
    except CorruptRunError:
        return None
    share = finite(table(value).get("share"))
    return {**origin.model_dump(), "share": share if share is not None and 0 <= share <= 1 else None}


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
            status = path.lstat()
            rows.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
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
