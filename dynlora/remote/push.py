"""Sending a run: files first, each named by its content; the manifest last, so that no reader sees half of a run."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dynlora.assets.cache import cache_dir
from dynlora.errors import ConfigError, CorruptRunError, RemoteError
from dynlora.remote.contents import Contents, put_together
from dynlora.remote.manifest import LIMITS, MANIFEST_NAME, MAX_BYTES, SHORT, Manifest, decoded
from dynlora.remote.place import Place
from dynlora.safe_files import read_plain, write_text
from dynlora.store import jsontext
from dynlora.store.schema import DB_NAME, check_run_id
from dynlora.store.summary import COPIED_NAME, Copied, fingerprint

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
class Sent:
    """What became of a run that was to be sent.

    Attributes:
        id: of the run.
        status: sent, or unchanged where all of it was there.
        revision: digest of what is there now.
        files: that were sent.
        sent_bytes: of these files.
    """

    id: str
    status: str
    revision: str
    files: int = 0
    sent_bytes: int = 0


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
) -> Sent:
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
        return Sent(folder.name, "unchanged", before.revision)
    with put_together(folder, with_checkpoint=sends_checkpoint) as contents:
        sent = _send(contents, place.below(folder.name), before, force)
    known.note(folder.name, mark, sent.revision)
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


def _send(contents: Contents, place: Place, before: Manifest | None, force: bool) -> Sent:
    now = contents.manifest
    if before is not None and not force and (before.opened, before.heartbeat) > (now.opened, now.heartbeat):
        raise LaterThereError(
            f"push {now.run}: {place.address} has a later state of the run; fetch that one, or add "
            "--force to replace it"
        )
    files, size = _send_files(contents, place)
    if before is None or before.revision != now.revision:
        manifest = contents.folder / MANIFEST_NAME
        manifest.write_bytes(now.encoded())
        if manifest.stat().st_size > MAX_BYTES:
            raise ConfigError(f"push {now.run}: its description has more than {MAX_BYTES:,} bytes; shorten its config")
        place.put(manifest, MANIFEST_NAME)
    elif not files:
        return Sent(now.run, "unchanged", now.revision)
    _clean(place, before, now)
    return Sent(now.run, "sent", now.revision, files, size)


def _send_files(contents: Contents, place: Place) -> tuple[int, int]:
    """Send the files that are not there, and look whether all are; return how many were sent, and their bytes."""
    files = size = 0
    needed = {entry.key: entry for entry in contents.manifest.files if entry.size}
    for _ in range(2):  # a second time where somebody else's push removed one meanwhile
        there = place.sizes()
        if DB_NAME in there:
            raise ConfigError(f"push: {place.address} is the folder of a run that is trained there; give another place")
        missing = [entry for key, entry in needed.items() if there.get(key) != entry.size]
        for entry in missing:
            place.put(contents.folder / entry.path, entry.key)
            files, size = files + 1, size + entry.size
        if not missing:
            return files, size
    there = place.sizes()
    lost = next((entry.path for key, entry in needed.items() if there.get(key) != entry.size), None)
    if lost is not None:
        raise RemoteError(f"{place.address}: {lost} was sent but is not there as it was sent; try again")
    return files, size


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
