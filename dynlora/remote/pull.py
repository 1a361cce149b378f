"""Fetching a run: everything into a folder aside, each file checked, then one rename. Nothing of it is trusted."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RemoteError, StorageError, storing
from dynlora.jobs import trash
from dynlora.jobs.spawn import runs_root
from dynlora.remote.contents import put_together
from dynlora.remote.manifest import Entry, Manifest
from dynlora.remote.parquet_tables import read_rows
from dynlora.remote.place import Place
from dynlora.remote.push import read_manifest
from dynlora.safe_files import sync
from dynlora.store.connection import lock_run
from dynlora.store.lifecycle import ASIDE
from dynlora.store.reader import RunReader
from dynlora.store.schema import run_folder
from dynlora.store.summary import COPIED_NAME, Copied, fingerprint
from dynlora.store.whole_tables import TABLES, build

TRIES = 3
"""How often a run is fetched again that was sent again meanwhile."""

_ROOM = 3
"""Free space that is asked for, in sizes of what is fetched: files, and the store that is made of them."""


@dataclass(frozen=True)
class Fetched:
    """What became of a run that was to be fetched.

    Attributes:
        id: of the run.
        status: fetched, updated where an earlier copy was replaced, or unchanged where it was here.
        revision: digest of what is here now.
        folder: of the run here.
        fetched_bytes: of all files.
    """

    id: str
    status: str
    revision: str
    folder: Path
    fetched_bytes: int = 0


def everything(_: Entry) -> bool:
    """Choose each file of a run."""
    return True


def without_weights(entry: Entry) -> bool:
    """Choose what a dashboard shows: all but adapters and checkpoint."""
    return entry.path.startswith("tables/") or "/" not in entry.path


def pull(
    place: Place,
    run_id: str,
    runs_dir: Path,
    *,
    replace: bool = False,
    is_mirror: bool = False,
) -> Fetched:
    """Fetch a run into a runs folder, or bring the copy there up to date.

    Args:
        place: folder of runs that it is fetched from.
        run_id: of the run.
        runs_dir: folder of the runs here; made when missing.
        replace: where another run of this id is here, move that one to the trash.
        is_mirror: for a dashboard that only shows: without weights, a run that trains elsewhere stays running, and what
            is here is overwritten.

    Raises:
        RemoteError: when there is no such run, or the place cannot be reached.
        CorruptRunError: when what is there is refused: nothing of it is here then.
        ConfigError: when another run of this id is here.
        StorageError: when the disk does not take it.
    """
    root = runs_root(runs_dir, make=True)
    folder = run_folder(root, run_id, must_exist=False)
    manifest = manifest_of(place, run_id)
    if os.path.lexists(folder) and _is_here(folder, manifest, is_mirror):
        return Fetched(run_id, "unchanged", manifest.revision, folder)
    for number in range(TRIES):
        try:
            return _fetch(place.below(run_id), manifest, folder, replace, is_mirror)
        except (RemoteError, CorruptRunError):
            again = manifest_of(place, run_id)
            if again.revision == manifest.revision or number == TRIES - 1:
                raise
            manifest = again
    raise AssertionError("unreachable")


def manifest_of(place: Place, run_id: str) -> Manifest:
    """Return what a run consists of in a folder of runs.

    Raises:
        RemoteError: when there is no such run, or the place cannot be reached.
        CorruptRunError: when the manifest is refused.
    """
    manifest = read_manifest(place, run_id)
    if manifest is None:
        raise RemoteError(f"{place.address} has no run {run_id!r}; look at the address")
    return manifest


def _is_here(folder: Path, manifest: Manifest, is_mirror: bool) -> bool:
    """Say whether a run is here as it is there: fetched before and not touched since, or equal in content."""
    copied = Copied.read(folder / COPIED_NAME)
    if copied is not None and copied.fingerprint == fingerprint(folder):
        return copied.revision == manifest.revision
    if is_mirror:
        return False
    try:
        with put_together(folder, with_checkpoint=manifest.has_checkpoint) as here:
            return here.manifest.revision == manifest.revision
    except DynloraError:
        return False


def _fetch(place: Place, manifest: Manifest, folder: Path, replace: bool, is_mirror: bool) -> Fetched:
    _check_replaceable(folder, place, replace or is_mirror)
    choose = without_weights if is_mirror else everything
    aside = folder.parent / f"{ASIDE}{folder.name}-{secrets.token_hex(4)}"
    with storing(f"the run {folder.name}"):
        aside.mkdir()
        try:
            size = fetch_files(place, manifest, aside, choose)
            make_store(aside, manifest.run, is_copy=not is_mirror)
            for path in (*(path for path in aside.rglob("*") if path.is_dir()), aside):
                sync(path)
            copied = Copied(url=place.address, revision=manifest.revision, fingerprint=fingerprint(aside))
            copied.write(aside / COPIED_NAME)
            status = _put_in_place(aside, folder, replace)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return Fetched(manifest.run, status, manifest.revision, folder, size)


def _check_replaceable(folder: Path, place: Place, replace: bool) -> None:
    """Refuse to lose a run that is here: an untouched copy may be brought up to date, any other only when told so."""
    if replace or not os.path.lexists(folder):
        return
    copied = Copied.read(folder / COPIED_NAME)
    if copied is None or copied.fingerprint != fingerprint(folder):
        raise ConfigError(
            f"URL {place.address}: {folder.parent} has a run {folder.name} of its own that differs; add --replace to "
            "move that one to the trash"
        )


def fetch_files(place: Place, manifest: Manifest, folder: Path, choose: Callable[[Entry], bool]) -> int:
    """Fetch files of a run, each checked, and return their bytes.

    Raises:
        RemoteError: when the place cannot be reached.
        CorruptRunError: when a file is not the one that was sent.
        StorageError: when there is no room.
    """
    chosen = [entry for entry in manifest.files if choose(entry)]
    size = sum(entry.size for entry in chosen)
    free = shutil.disk_usage(folder).free
    if free < _ROOM * size:
        raise StorageError(
            f"{place.address}: {size / 1e6:,.0f} MB are fetched, {free / 1e6:,.0f} MB are free; make room"
        )
    for entry in chosen:
        target = folder / entry.path
        target.parent.mkdir(exist_ok=True)
        place.fetch(entry.key, target, entry.size, entry.sha256)
    return size


def make_store(folder: Path, run_id: str, *, is_copy: bool) -> None:
    """Make `run.db` of the tables in a folder, and remove these.

    Raises:
        CorruptRunError: when they cannot be those of a run.
    """
    tables = folder / "tables"
    there = [name for name in TABLES if (tables / f"{name}.parquet").exists()]
    build(folder, {name: read_rows(tables / f"{name}.parquet", name, run_id) for name in there}, is_copy=is_copy)
    shutil.rmtree(tables)
    with RunReader(folder) as reader:
        reader.status()
        reader.modules()
        reader.signals()


def _put_in_place(aside: Path, folder: Path, replace: bool) -> str:
    """Give a run its name in one rename; where one is replaced, it steps aside first."""
    if not os.path.lexists(folder):
        aside.rename(folder)
        sync(folder.parent)
        return "fetched"
    if replace:
        trash.delete(folder.parent, folder.name, is_replaced=True)
        aside.rename(folder)
        sync(folder.parent)
        return "updated"
    old = folder.parent / f"{ASIDE}{folder.name}-{secrets.token_hex(4)}"
    lock = lock_run(folder)
    try:
        folder.rename(old)
        try:
            aside.rename(folder)
        except OSError:
            old.rename(folder)
            raise
    finally:
        lock.release()
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
    return "updated"
