"""Sending and fetching runs, one or all of a folder: what is there already stays, and one bad run stops no other."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dynlora.assets.hub import cache_dir
from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RemoteError, StorageError, storing
from dynlora.jobs import queue
from dynlora.jobs.spawn import locked, runs_root
from dynlora.remote.contents import (
    LIMITS,
    MANIFEST_NAME,
    MAX_BYTES,
    SHORT,
    Contents,
    Entry,
    Manifest,
    decoded,
    put_together,
)
from dynlora.remote.parquet_tables import read_rows
from dynlora.remote.place import Place
from dynlora.safe_files import read_plain, sync, write_text
from dynlora.store import jsontext
from dynlora.store.catalogue import run_folders
from dynlora.store.connection import lock_run
from dynlora.store.lifecycle import ASIDE
from dynlora.store.reader import RunReader
from dynlora.store.schema import DB_NAME, check_run_id, run_folder
from dynlora.store.summary import COPIED_NAME, Copied, fingerprint
from dynlora.store.whole_tables import TABLES, build

_NAMES = "|".join(
    re.escape(str(path.with_name(f"{path.stem}-#{path.suffix}"))).replace("\\#", f"[0-9a-f]{{{SHORT}}}")
    for path in map(PurePosixPath, LIMITS)
)
_SENT = re.compile(rf"(?:{_NAMES})(?:\.[0-9a-f]{{8}}\.part)?|manifest\.json\.[0-9a-f]{{8}}\.part")
"""Every name under which a file of a run is sent, or was being sent when that broke."""


def may_be_sent(names: Iterable[str]) -> set[str]:
    """Return those of the names below a run that a push can have made; the rest is somebody else's."""
    return {name for name in names if _SENT.fullmatch(name)}


def holds_run(folder: Path) -> bool:
    """Say whether a run is trained in a folder; one that was sent has no store of its own."""
    return os.path.lexists(folder / DB_NAME)


def _folders(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []


def check_target(place: Place, runs_dir: Path) -> None:
    """Refuse a place that runs cannot be sent to, before anything is looked at or sent.

    Args:
        place: folder of runs that some are to be sent to.
        runs_dir: folder that they are sent from.

    Raises:
        ConfigError: when runs are trained there, or nothing can be written there.
    """
    if place.is_web:
        raise ConfigError(f"URL {place.address}: is read only; send runs to a folder or a bucket")
    if not place.is_local:
        return
    target = Path(os.path.realpath(place.root))
    inside = next((folder for folder in (target, *target.parents) if holds_run(folder)), None)
    if inside is not None:
        raise ConfigError(f"URL {place.address}: is in the folder of the run {inside.name}; give a folder of its own")
    if target == Path(os.path.realpath(runs_dir)) or any(holds_run(entry) for entry in _folders(target)):
        raise ConfigError(
            f"URL {place.address}: is a folder that runs are trained in; give another one, such as {place.address}-sent"
        )


KEEP_S = 900.0
"""How long a file that no manifest names any more stays, seconds: somebody may be reading the run as it was."""

MAX_RECORD_BYTES = 64 * 2**20


class LaterThereError(ConfigError):
    """The place has a later state of the run than this folder."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        id: of the run.
        status: sent, fetched, updated, unchanged, later there (left as it is), or failed.
        moved_bytes: that were sent or fetched.
        error: one sentence where it failed.
    """

    id: str
    status: str
    moved_bytes: int = 0
    error: str | None = None


def read_manifest(place: Place, run_id: str) -> Manifest | None:
    """Return what a run consists of in a folder of runs; None where there is no such run.

    Raises:
        CorruptRunError: when the manifest is refused.
        RemoteError: when the place cannot be reached.
    """
    folder = place.below(check_run_id(run_id))
    data = folder.read(MANIFEST_NAME, MAX_BYTES)
    return None if data is None else decoded(data, run_id, folder.address)


def push(
    folder: Path,
    place: Place,
    *,
    with_checkpoint: bool | None = None,
    force: bool = False,
    record: PushRecord | None = None,
) -> Outcome:
    """Send a run, or what of it is not there yet.

    Args:
        folder: of the run, which may be training.
        place: folder of runs that it is sent to.
        with_checkpoint: send what training continues from; None: where it was sent before.
        force: also over a later state of the same run.
        record: of what was sent before; saved here where it is not given.

    Raises:
        LaterThereError: when a later state of the run is there.
        ConfigError: when a run is trained in the place, or nothing can be written there.
        CorruptRunError: when the run is damaged; nothing is sent then.
        RemoteError: when the place cannot be reached; the run there is as it was before.
    """
    if place.is_web:
        check_target(place, folder.parent)
    before = read_manifest(place, folder.name)
    sends_checkpoint = before is not None and before.has_checkpoint if with_checkpoint is None else with_checkpoint
    known = record or PushRecord(folder.parent, place.address)
    mark = fingerprint(folder)
    if (
        before is not None
        and sends_checkpoint == before.has_checkpoint
        and _is_known(folder, place, before, known, mark)
    ):
        return Outcome(folder.name, "unchanged")
    with put_together(folder, with_checkpoint=sends_checkpoint) as contents:
        sent = _send(contents, place.below(folder.name), before, force)
    known.note(folder.name, mark, contents.manifest.revision)
    if record is None:
        known.save()
    return sent


def _is_known(folder: Path, place: Place, before: Manifest, record: PushRecord, mark: str) -> bool:
    """Say whether a run is there as it is here, without a look at its content: sent before, or fetched from there."""
    if record.find(folder.name, mark) == before.revision:
        return True
    copied = Copied.read(folder / COPIED_NAME)
    return (
        copied is not None
        and copied.url == place.below(folder.name).address
        and (copied.revision, copied.fingerprint) == (before.revision, mark)
    )


def _send(contents: Contents, place: Place, before: Manifest | None, force: bool) -> Outcome:
    now = contents.manifest
    if before is not None and not force and (before.opened, before.heartbeat) > (now.opened, now.heartbeat):
        raise LaterThereError(
            f"push {now.run}: {place.address} has a later state of the run; fetch that one, or add "
            "--force to replace it"
        )
    size = _send_files(contents, place)
    if before is None or before.revision != now.revision:
        manifest = contents.folder / MANIFEST_NAME
        manifest.write_bytes(now.encoded())
        if manifest.stat().st_size > MAX_BYTES:
            raise ConfigError(f"push {now.run}: its description has more than {MAX_BYTES:,} bytes; shorten its config")
        place.put(manifest, MANIFEST_NAME)
    elif not size:
        return Outcome(now.run, "unchanged")
    _clean(place, before, now)
    return Outcome(now.run, "sent", size)


def _send_files(contents: Contents, place: Place) -> int:
    """Send the files that are not there, and look whether all are; return the bytes that were sent."""
    size = 0
    needed = {entry.key: entry for entry in contents.manifest.files if entry.size}
    for _ in range(2):  # a second time where somebody else's push removed one meanwhile
        there = place.sizes()
        if DB_NAME in there:
            raise ConfigError(f"push: {place.address} is the folder of a run that is trained there; give another place")
        missing = [entry for key, entry in needed.items() if there.get(key) != entry.size]
        for entry in missing:
            place.put(contents.folder / entry.path, entry.key)
            size += entry.size
        if not missing:
            return size
    there = place.sizes()
    lost = next((entry.path for key, entry in needed.items() if there.get(key) != entry.size), None)
    if lost is not None:
        raise RemoteError(f"{place.address}: {lost} was sent but is not there as it was sent; try again")
    return size


def _clean(place: Place, before: Manifest | None, now: Manifest) -> None:
    """Remove what was sent and neither this manifest nor the one before names, once it is old."""
    named = {entry.key for manifest in (before, now) if manifest is not None for entry in manifest.files}
    with suppress(RemoteError):
        for key in may_be_sent(place.sizes()) - named:
            age = place.age_s(key, MANIFEST_NAME)
            if age is not None and age > KEEP_S:
                place.remove([key])


class PushRecord:
    """What was sent to a place from a runs folder, so that what did not change since need not be looked at.

    A hint in the user's cache that may be deleted at any time. It counts only while a run's files are the very ones
    that were sent, and the place says the same.
    """

    def __init__(self, runs_dir: Path, title: str) -> None:
        """Read what was noted of a place."""
        name = hashlib.sha256(f"{os.path.realpath(runs_dir)}\0{title}".encode("utf-8", "replace")).hexdigest()[:16]
        self._path = cache_dir() / "pushed" / f"{name}.json"
        text = read_plain(self._path, MAX_RECORD_BYTES)
        try:
            self._kept = {} if text is None else jsontext.load_object(text)
        except CorruptRunError:
            self._kept = {}

    def find(self, run_id: str, mark: str) -> str | None:
        """Return the revision under which a run's files were sent; None where they are others now."""
        record = self._kept.get(run_id)
        return record[1] if isinstance(record, list) and len(record) == 2 and record[0] == mark else None

    def note(self, run_id: str, mark: str, revision: str) -> None:
        """Note what was sent."""
        self._kept[run_id] = [mark, revision]

    def save(self) -> None:
        """Write the file; a cache that cannot be written is left as it is."""
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(self._kept) + "\n")


TRIES = 3
"""How often a run is fetched again that was sent again meanwhile."""

_ROOM = 3
"""Free space that is asked for, in sizes of what is fetched: files, and the store that is made of them."""


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
) -> Outcome:
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
        return Outcome(run_id, "unchanged")
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


def _fetch(place: Place, manifest: Manifest, folder: Path, replace: bool, is_mirror: bool) -> Outcome:
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
    return Outcome(manifest.run, status, size)


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
        queue.delete(folder.parent, folder.name, is_replaced=True)
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


SAVE_EVERY = 50
"""Runs after which it is noted what was sent."""


def run_ids(place: Place) -> list[str]:
    """Return the names of folders that may be runs, in order; which of them are is in their manifests.

    Raises:
        RemoteError: when the place cannot be reached.
    """
    ids: list[str] = []
    for name in place.folders():
        try:
            ids.append(check_run_id(name))
        except ConfigError:
            continue
    return ids


def manifests(place: Place) -> dict[str, Manifest | CorruptRunError]:
    """Return what each run of a place consists of, by id, and why it is refused where it is.

    Raises:
        RemoteError: when the place cannot be reached.
    """

    def one(run_id: str) -> Manifest | CorruptRunError | None:
        try:
            return read_manifest(place, run_id)
        except CorruptRunError as error:
            return error

    ids = run_ids(place)
    read = zip(ids, place.read_each(ids, one), strict=True)
    return {run_id: manifest for run_id, manifest in read if manifest is not None}


def push_all(runs_dir: Path, place: Place, *, with_checkpoint: bool | None = None) -> list[Outcome]:
    """Send every run of a folder that is not there as it is here.

    Raises:
        ConfigError: when runs are trained in the place, or nothing can be written there.
        RemoteError: when the place cannot be reached at all.
    """
    check_target(place, runs_dir)
    place.folders()
    record = PushRecord(runs_dir, place.address)

    def one(folder: Path) -> Outcome:
        return push(folder, place, with_checkpoint=with_checkpoint, record=record)

    try:
        return each(run_folders(runs_dir), one, lambda folder: folder.name, record.save)
    finally:
        record.save()


def pull_all(
    place: Place, runs_dir: Path, *, replace: bool = False, is_mirror: bool = False, ids: Sequence[str] | None = None
) -> list[Outcome]:
    """Fetch every run of a place that is not here as it is there.

    Args:
        place: folder of runs.
        runs_dir: folder of the runs here.
        replace: see `pull`.
        is_mirror: see `pull`.
        ids: these alone, in this order.

    Raises:
        RemoteError: when the place cannot be reached at all, or holds no runs.
    """
    chosen = run_ids(place) if ids is None else ids
    if not chosen:
        raise RemoteError(f"{place.address} has no runs; look at the address")

    def one(run_id: str) -> Outcome:
        return pull(place, run_id, runs_dir, replace=replace, is_mirror=is_mirror)

    return each(chosen, one, str)


def each(
    items: Iterable[Any],
    one: Callable[[Any], Outcome],
    name: Callable[[Any], str],
    save: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Return what became of each run; an error is that run's alone.

    Args:
        items: runs.
        one: sends or fetches one of them.
        name: returns its id.
        save: called now and then.
    """
    outcomes: list[Outcome] = []
    for number, item in enumerate(items, start=1):
        try:
            outcomes.append(one(item))
        except LaterThereError:
            outcomes.append(Outcome(name(item), "later there"))
        except DynloraError as error:
            outcomes.append(Outcome(name(item), "failed", error=str(error)))
        if number % SAVE_EVERY == 0:
            save()
    return outcomes


EVERY_S = 20.0
"""Seconds between two looks at what was sent, at least; a look that takes long comes more rarely."""

REST = 5.0
"""Waiting between two looks, in durations of the last one, at least."""

_LOCK_NAME, _LOCK_WAIT_S = ".mirror.lock", 5.0
_log = logging.getLogger(__name__)


class Mirror:
    """A copy of a folder of runs in the user's cache.

    Attributes:
        place: that it is a copy of.
        folder: of the runs here.
    """

    def __init__(self, url: str) -> None:
        """Find the place; nothing is fetched yet.

        Raises:
            ConfigError: when it is no address.
        """
        self.place = Place(url)
        name = hashlib.sha256(self.place.address.encode("utf-8", "replace")).hexdigest()[:16]
        self.folder = cache_dir() / "mirrors" / name
        self._said = ""

    def refresh(self) -> list[Outcome]:
        """Fetch what was sent since, the newest first, and remove what is not there any more.

        Raises:
            RemoteError: when the place cannot be reached.
            RunBusyError: when another dashboard does the same for longer than some seconds.
            StorageError: when the cache cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / _LOCK_NAME, _LOCK_WAIT_S):
            current = manifests(self.place)
            for folder in run_folders(self.folder):
                if folder.name not in current:
                    shutil.rmtree(folder, ignore_errors=True)
            news = {run_id: manifest for run_id, manifest in current.items() if not self._has(run_id, manifest)}
            ids = sorted(news, key=lambda run_id: (_time(news[run_id]), run_id), reverse=True)
            return pull_all(self.place, self.folder, is_mirror=True, ids=ids) if ids else []

    def _has(self, run_id: str, manifest: Manifest | DynloraError) -> bool:
        copied = Copied.read(self.folder / run_id / COPIED_NAME)
        return copied is not None and isinstance(manifest, Manifest) and copied.revision == manifest.revision

    def follow(self, stop: threading.Event) -> None:
        """Refresh now and again until told to stop; what goes wrong is logged, once while it stays the same."""
        while True:
            message, began = "", time.monotonic()
            try:
                failed = [outcome for outcome in self.refresh() if outcome.status == "failed"]
                message = "; ".join(f"{outcome.id}: {outcome.error}" for outcome in failed[:3])
            except (DynloraError, OSError) as error:
                message = str(error)
            if message and message != self._said:
                _log.warning("copy of %s: %s", self.place.address, message)
            self._said = message
            if stop.wait(max(EVERY_S, REST * (time.monotonic() - began))):
                return

    def start(self) -> threading.Event:
        """Follow the place in a thread that ends with this process; set the event that is returned to end it."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        stop = threading.Event()
        threading.Thread(target=self.follow, args=(stop,), name="dynlora-mirror", daemon=True).start()
        return stop


def _time(manifest: Manifest | DynloraError) -> float:
    return manifest.pushed_at if isinstance(manifest, Manifest) else 0.0
