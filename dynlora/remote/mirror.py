"""A folder of runs somewhere, for a dashboard here: a copy without weights, read-only, that follows what is sent."""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from contextlib import suppress

from dynlora.assets.cache import cache_dir
from dynlora.errors import DynloraError
from dynlora.jobs.spawn import locked
from dynlora.remote.manifest import Manifest
from dynlora.remote.place import Place
from dynlora.remote.sync import Outcome, manifests, pull_all
from dynlora.store.catalogue import run_folders
from dynlora.store.copied import COPIED_NAME, Copied

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
        name = hashlib.sha256(self.place.shown.encode("utf-8", "replace")).hexdigest()[:16]
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
            found = manifests(self.place)
            for folder in run_folders(self.folder):
                if folder.name not in found:
                    shutil.rmtree(folder, ignore_errors=True)
            news = {run_id: manifest for run_id, manifest in found.items() if not self._has(run_id, manifest)}
            ids = sorted(news, key=lambda run_id: (_time(news[run_id]), run_id), reverse=True)
            return pull_all(self.place, self.folder, is_mirror=True, ids=ids) if ids else []

    def _has(self, run_id: str, manifest: Manifest | DynloraError) -> bool:
        copied = Copied.read(self.folder / run_id / COPIED_NAME)
        return copied is not None and isinstance(manifest, Manifest) and copied.revision == manifest.revision

    def follow(self, stop: threading.Event) -> None:
        """Refresh now and again until told to stop; what goes wrong is logged, once while it stays the same."""
        while True:
            said, began = "", time.monotonic()
            try:
                failed = [outcome for outcome in self.refresh() if outcome.status == "failed"]
                said = "; ".join(f"{outcome.id}: {outcome.error}" for outcome in failed[:3])
            except (DynloraError, OSError) as error:
                said = str(error)
            if said and said != self._said:
                _log.warning("copy of %s: %s", self.place.shown, said)
            self._said = said
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
