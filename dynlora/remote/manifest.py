"""`manifest.json`: what a run that was sent consists of, each file with its size and its digest.

It is written last, and names files by their content: whoever reads it sees the run as it was before or as it is now.
Whoever wrote it is not trusted: only files of a run are taken, each once and within limits; places follow from digests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dynlora.errors import CorruptRunError
from dynlora.store import jsontext, measurements, notes
from dynlora.store.meta import moment, table, whole
from dynlora.store.summary import ADAPTER_DIR, ORIGIN_NAME, Origin
from dynlora.store.whole_tables import TABLES
from dynlora.text import printable

MANIFEST_NAME = "manifest.json"
FORMAT = 1
MAX_BYTES = 2 * 2**20
"""Of a manifest."""

MAX_TENSORS = 256 * 2**30
MAX_TABLE = 64 * 2**30
MAX_STATE = 50_000_000
MAX_TOTAL = 512 * 2**30
"""Of all files of a run, bytes."""

MAX_LOG = 64 * 2**20
"""Of a run's log; of a longer one its end is sent."""

ADAPTERS = ("adapter", "adapter-best")
CHECKPOINT = "checkpoint"
SAVED = ("state.json", "tensors.safetensors")
"""The two files of an adapter or a checkpoint."""

KEPT: Mapping[str, int] = {
    "config.yaml": 4 * 2**20,
    "train.log": MAX_LOG,
    notes.NOTES_NAME: notes.Notes.MAX_BYTES,
    measurements.KNOCKOUT_NAME: measurements.Knockouts.MAX_BYTES,
    "knockout-begun.json": measurements.Knockouts.MAX_BYTES,
    measurements.COMPRESS_NAME: measurements.Compressed.MAX_BYTES,
}
"""Small files of a run, and the most bytes that each may have."""

START: Mapping[str, int] = {
    "start/adapter_config.json": MAX_STATE,
    "start/adapter_model.safetensors": MAX_TENSORS,
    "start/config.json": MAX_STATE,
    f"start/{ORIGIN_NAME}": Origin.MAX_BYTES,
}
"""The adapter that a run started from."""

RECORDED: Mapping[str, int] = {
    f"{ADAPTER_DIR}/adapter_config.json": MAX_STATE,
    f"{ADAPTER_DIR}/adapter_model.safetensors": MAX_TENSORS,
    f"{ADAPTER_DIR}/README.md": MAX_STATE,
}
"""The adapter of a run that another program trained, as PEFT wrote it."""

LIMITS: Mapping[str, int] = {
    **KEPT,
    **START,
    **RECORDED,
    **{f"{name}/{SAVED[0]}": MAX_STATE for name in (*ADAPTERS, CHECKPOINT)},
    **{f"{name}/{SAVED[1]}": MAX_TENSORS for name in (*ADAPTERS, CHECKPOINT)},
    **{f"tables/{name}.parquet": MAX_TABLE for name in TABLES},
}
"""Every file that a run may have where it was sent, and the most bytes it may have; there are no others."""

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
SHORT = 16
"""Characters of a digest that are part of the name of a file that was sent."""


@dataclass(frozen=True)
class Entry:
    """A file of a run.

    Attributes:
        path: one of `LIMITS`.
        size: in bytes.
        sha256: of its content, in hexadecimal.
    """

    path: str
    size: int
    sha256: str

    @property
    def key(self) -> str:
        """Where it is below the run: a name that follows from path and content, so that other content is elsewhere."""
        path = PurePosixPath(self.path)
        return str(path.with_name(f"{path.stem}-{self.sha256[:SHORT]}{path.suffix}"))


@dataclass(frozen=True)
class Manifest:
    """What a run consists of where it was sent.

    Attributes:
        run: its id.
        files: each once, by path.
        pushed_at: when it was sent, seconds since the epoch.
        heartbeat: last sign of life of the run that was sent, seconds since the epoch.
        opened: how often a writer had opened it.
        summary: what a list or a query asks of a run; never used to make the run again.
    """

    run: str
    files: Sequence[Entry]
    pushed_at: float
    heartbeat: float
    opened: int
    summary: Mapping[str, Any]

    @property
    def revision(self) -> str:
        """Digest of all files: equal revisions are equal runs."""
        rows = sorted(f"{entry.path}\0{entry.size}\0{entry.sha256}\n" for entry in self.files)
        return hashlib.sha256("".join(rows).encode()).hexdigest()

    @property
    def has_checkpoint(self) -> bool:
        """Whether training can continue from it."""
        return any(entry.path.startswith(f"{CHECKPOINT}/") for entry in self.files)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def encoded(self) -> bytes:
        """Return the file."""
        files = [
            {"path": entry.path, "key": entry.key, "bytes": entry.size, "sha256": entry.sha256} for entry in self.files
        ]
        document = {
            "format": FORMAT,
            "run": self.run,
            "revision": self.revision,
            "pushed_at": self.pushed_at,
            "heartbeat": self.heartbeat,
            "opened": self.opened,
            "summary": self.summary,
            "files": files,
        }
        return (json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode("utf-8", "replace")


def decoded(data: bytes, run: str, address: str) -> Manifest:
    """Return a manifest after checking everything it says of files.

    Args:
        data: the file.
        run: id of the run whose folder it is in.
        address: of the manifest's folder, for a message.

    Raises:
        CorruptRunError: when it is not what dynlora writes, names a file that no run has, or one twice.
    """
    try:
        return _manifest(_document(data), run)
    except CorruptRunError as error:
        raise CorruptRunError(f"{address}/{MANIFEST_NAME}: {error}; it is refused, send the run again") from None


def _document(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8")
        json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise CorruptRunError("is not JSON, possibly cut short") from None
    return jsontext.load_object(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _manifest(document: dict[str, Any], run: str) -> Manifest:
    version = document.get("format")
    if version != FORMAT:
        raise CorruptRunError(f"has format {printable(version, 20)}, this dynlora reads {FORMAT}")
    if document.get("run") != run:
        raise CorruptRunError(f"is of run {printable(document.get('run'), 80)}, not of {run}")
    times, opened = [moment(document.get(key)) for key in ("pushed_at", "heartbeat")], whole(document.get("opened"))
    if None in times or opened is None or opened < 0:
        raise CorruptRunError("does not say when the run was sent")
    manifest = Manifest(
        run, _entries(document.get("files")), times[0] or 0.0, times[1] or 0.0, opened, table(document.get("summary"))
    )
    if manifest.revision != document.get("revision"):
        raise CorruptRunError("names other files than its revision says")
    return manifest


def _entries(value: Any) -> list[Entry]:
    rows: list[Any] = value if isinstance(value, list) else []
    if not 0 < len(rows) <= len(LIMITS):
        raise CorruptRunError(f"names {len(rows):,} files, a run has 1 to {len(LIMITS)}")
    entries = [_entry(row) for row in rows]
    if len({entry.path for entry in entries}) != len(entries):
        raise CorruptRunError("names a file twice")
    if sum(entry.size for entry in entries) > MAX_TOTAL:
        raise CorruptRunError(f"names more than {MAX_TOTAL:,} bytes")
    for name in ("meta", "status"):
        if f"tables/{name}.parquet" not in {entry.path for entry in entries}:
            raise CorruptRunError(f"lacks the table {name}")
    return entries


def _entry(value: Any) -> Entry:
    row = table(value)
    path, size, sha256 = (row.get(key) for key in ("path", "bytes", "sha256"))
    if not isinstance(path, str) or path not in LIMITS:
        raise CorruptRunError(f"names the file {printable(path, 80)!r}, which no run has")
    if type(size) is not int or not 0 <= size <= LIMITS[path]:
        raise CorruptRunError(f"says that {path} has {printable(size, 40)} bytes, which it cannot have")
    if not isinstance(sha256, str) or not _DIGEST.match(sha256):
        raise CorruptRunError(f"gives no digest of {path}")
    entry = Entry(path, size, sha256)
    if row.get("key") != entry.key:
        raise CorruptRunError(f"has {path} in a place that does not follow from its digest")
    return entry
