"""What a run that travels consists of, all of one moment, and `manifest.json`, which names each file and its digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dynlora.errors import CorruptRunError, storing
from dynlora.peft_adapter.adapter_config import TensorFile
from dynlora.remote.parquet_tables import write_tables
from dynlora.safe_files import NotPlainFileError, open_plain, read_plain
from dynlora.store import jsontext, measurements, notes
from dynlora.store.lifecycle import now
from dynlora.store.meta import moment, table, whole
from dynlora.store.notes import read_notes
from dynlora.store.reader import RunReader
from dynlora.store.summary import ADAPTER_DIR, ORIGIN_NAME, Origin, run_summary
from dynlora.store.whole_tables import TABLES, at_one_moment
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
    measurements.EFFECTS_NAME: measurements.Effects.MAX_BYTES,
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
    entries = [_checked_entry(row) for row in rows]
    if len({entry.path for entry in entries}) != len(entries):
        raise CorruptRunError("names a file twice")
    if sum(entry.size for entry in entries) > MAX_TOTAL:
        raise CorruptRunError(f"names more than {MAX_TOTAL:,} bytes")
    for name in ("meta", "status"):
        if f"tables/{name}.parquet" not in {entry.path for entry in entries}:
            raise CorruptRunError(f"lacks the table {name}")
    return entries


def _checked_entry(value: Any) -> Entry:
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


STATE, TENSORS = "state.json", "tensors.safetensors"
SAVED_PARTS = ("step", "adapters", "head", "labels", "task", "task_settings", "metrics")
"""What `trained_state` of training/checkpoints.py holds; the rest of a checkpoint is for a resume."""

_PREFIXES = tuple(f"/{name}/" for name in SAVED_PARTS)
"""How the names of their tensors begin."""

MAX_STATE_BYTES = 50_000_000
_HEADER_STEP = 8
"""The header of a safetensors file fills up to a multiple of so many bytes."""


def is_whole(folder: Path) -> bool:
    """Say whether the two files of a saved state are of the same moment, as far as they say so.

    Raises:
        CorruptRunError: when they cannot be read.
    """
    digest = _state(folder).get("tensors")
    if digest is None:  # of an earlier version
        return True
    with (folder / TENSORS).open("rb") as file:
        return digest == hashlib.file_digest(file, "sha256").hexdigest()


def write_adapter_of(checkpoint: Path, target: Path) -> bool:
    """Write what was learned up to a checkpoint as a saved adapter; False where the checkpoint holds no adapter.

    Args:
        checkpoint: folder with a state and its tensors.
        target: a folder that is made.

    Raises:
        CorruptRunError: when the state cannot be read.
        AdapterError: when the tensors cannot.
        OSError: when the disk refuses.
    """
    packed = _state(checkpoint)
    rows: Any = table(packed.get("state")).get("dict")
    listed: list[Any] = rows if isinstance(rows, list) else []
    saved = [row for row in listed if isinstance(row, list) and row and row[0] in SAVED_PARTS]
    if "adapters" not in [row[0] for row in saved]:
        return False
    target.mkdir()
    digest = _write_tensors(checkpoint / TENSORS, target / TENSORS)
    state = {"format": packed.get("format"), "state": {"dict": saved}, "tensors": digest}
    (target / STATE).write_text(json.dumps(state), "utf-8")
    return True


def _state(folder: Path) -> dict[str, Any]:
    text = read_plain(folder / STATE, MAX_STATE_BYTES)
    try:
        state = json.loads(text or "")
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        raise CorruptRunError(f"{folder.name}/{STATE} cannot be read; it is damaged")
    return state


def _write_tensors(source: Path, target: Path) -> str:
    """Copy the tensors of what is kept, and return the digest of the new file."""
    digest = hashlib.sha256()
    with TensorFile(source) as tensors, source.open("rb") as data, target.open("xb") as file:
        infos = {name: info for name, info in tensors.infos.items() if name.startswith(_PREFIXES)}
        header: dict[str, Any] = {}
        place = 0
        for name, info in infos.items():
            header[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [place, place + info.size]}
            place += info.size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _HEADER_STEP)
        for part in (len(text).to_bytes(8, "little"), text):
            file.write(part)
            digest.update(part)
        for info in infos.values():
            data.seek(info.start)
            part = data.read(info.size)
            file.write(part)
            digest.update(part)
    return digest.hexdigest()


TRIES = 5
"""How often a run is put together again because its training replaced an adapter meanwhile."""

LEFT_OUT = (
    "folder",
    "activity",
    "model_path",
    "heartbeat_age_s",
    "stalled_s",
    "other_host",
    "ranks",
    "scaling",
    "own_signals",
)
"""What `show --json` says of this machine or this moment, or what is in the tables."""

_CHUNK = 2**20


@dataclass(frozen=True)
class Contents:
    """A run put together.

    Attributes:
        folder: holds each file under its path.
        manifest: what it consists of.
    """

    folder: Path
    manifest: Manifest


@contextmanager
def put_together(folder: Path, *, with_checkpoint: bool) -> Generator[Contents]:
    """Lend a run as files that can be sent; it may be training meanwhile.

    Args:
        folder: of the run.
        with_checkpoint: include what training continues from; else the adapters alone.

    Raises:
        RunNotFoundError: when the folder holds no run.
        CorruptRunError: when the run is damaged or one of its files is a link: nothing of it is sent then.
        StorageError: when there is no room for it.
    """
    with tempfile.TemporaryDirectory(prefix="dynlora-send-") as place, storing("the copy of the run that is sent"):
        for number in range(TRIES):
            target = Path(place) / str(number)
            target.mkdir()
            before = _saved_state(folder)
            parts = _copied(folder, target, with_checkpoint)
            if parts is not None and before == _saved_state(folder):
                yield Contents(target, parts)
                return
    raise CorruptRunError(
        f"run {folder.name}: the two files of an adapter are from different times; copy the run again, or wait for the "
        "next checkpoint"
    )


def _saved_state(folder: Path) -> list[Any]:
    """Return what changes when an adapter or a checkpoint is replaced."""
    files: list[Any] = []
    names = [f"{place}/{file}" for place in _saved_folders(folder).values() for file in SAVED]
    for path in (folder / name for name in (*names, *RECORDED)):
        try:
            stat = os.lstat(path)
            files.append((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            files.append((str(path),))
    return files


def _saved_folders(folder: Path) -> dict[str, str]:
    """Return where each saved state is: its folder, or the old one after a crash between two renames."""
    folders: dict[str, str] = {}
    for name in (*ADAPTERS, CHECKPOINT):
        places = (place for place in (name, f".{name}.old") if os.path.lexists(folder / place / SAVED[0]))
        if (place := next(places, None)) is not None:
            folders[name] = place
    return folders


def _copied(folder: Path, target: Path, with_checkpoint: bool) -> Manifest | None:
    """Copy a run; None where an adapter was replaced meanwhile. Adapters first: none knows more than the record."""
    entries: list[Entry] = []
    for name, place in _saved_folders(folder).items():
        files = [_copy(folder / place / file, target, f"{name}/{file}") for file in SAVED]
        if None in files or not is_whole(target / name):
            return None
        if name != CHECKPOINT or with_checkpoint:
            entries += [entry for entry in files if entry is not None]
    checkpoint, adapter = target / CHECKPOINT, target / ADAPTERS[0]
    if checkpoint.exists() and not adapter.exists() and write_adapter_of(checkpoint, adapter):
        entries += [_entry(target, f"{ADAPTERS[0]}/{file}") for file in SAVED]
    for name in (*KEPT, *START, *RECORDED):
        entry = _copy(folder / name, target, name)
        entries += [] if entry is None else [entry]
    return _with_tables(folder, target, entries)


def _with_tables(folder: Path, target: Path, entries: list[Entry]) -> Manifest:
    spare = target / ".moment" / folder.name
    spare.mkdir(parents=True)
    (target / "tables").mkdir()
    with at_one_moment(folder, spare) as run:
        entries += [_entry(target, f"tables/{path.name}") for path in write_tables(run, folder.name, target / "tables")]
    with RunReader(spare) as reader:
        status = reader.status()
    notes = read_notes(folder)
    summary = {key: value for key, value in run_summary(spare) if key not in LEFT_OUT}
    summary |= {"tags": list(notes.tags), "note": notes.note}
    return Manifest(
        folder.name, sorted(entries, key=lambda entry: entry.path), now(), status.heartbeat, status.opened, summary
    )


def _copy(source: Path, target: Path, path: str) -> Entry | None:
    """Copy a file of a run and return what it is; None where there is none. Of a long log the end is copied."""
    try:
        file, size = open_plain(source)
    except NotPlainFileError:
        raise CorruptRunError(f"{source}: is a link or no regular file; replace it by the file itself") from None
    except FileNotFoundError:
        return None
    limit = LIMITS[path]
    place = target / path
    place.parent.mkdir(exist_ok=True)
    with file, place.open("xb") as copy:
        if size > limit and path != "train.log":
            raise CorruptRunError(f"{source}: has {size:,} bytes, at most {limit:,} are allowed; it is not of dynlora")
        file.seek(max(0, size - limit))
        for chunk in _chunks(file, limit):
            copy.write(chunk)
    return _entry(target, path)


def _chunks(file: Any, limit: int) -> Iterator[bytes]:
    left = limit
    while left and (chunk := file.read(min(left, _CHUNK))):
        left -= len(chunk)
        yield chunk


def _entry(folder: Path, path: str) -> Entry:
    with (folder / path).open("rb") as file:
        return Entry(path, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())
