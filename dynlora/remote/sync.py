"""Sending and fetching all runs of a folder: what is there already is left alone, and one bad run stops no other."""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynlora.assets.cache import cache_dir
from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RemoteError
from dynlora.jobs.spawn import locked
from dynlora.remote.manifest import Manifest
from dynlora.remote.place import Place
from dynlora.remote.pull import pull
from dynlora.remote.push import LaterThereError, PushRecord, check_target, push, read_manifest
from dynlora.store.catalogue import run_folders
from dynlora.store.schema import check_run_id
from dynlora.store.summary import COPIED_NAME, Copied

SAVE_EVERY = 50
"""Runs after which it is noted what was sent."""


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
        sent = push(folder, place, with_checkpoint=with_checkpoint, record=record)
        return Outcome(sent.id, sent.status, sent.sent_bytes)

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
        outcome = pull(place, run_id, runs_dir, replace=replace, is_mirror=is_mirror)
        return Outcome(outcome.id, outcome.status, outcome.fetched_bytes)

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
