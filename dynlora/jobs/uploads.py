"""Files that a browser sends: kept under the runs folder by their content, read as data and never run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from dynlora.data_files.opening import FORMATS, endings_text, is_table
from dynlora.errors import CorruptRunError, DataError, storing
from dynlora.jobs.spawn import Folder, own_folder, runs_root
from dynlora.peft_adapter import CONFIG_NAME, TENSORS_NAME
from dynlora.safe_files import write_bytes

UPLOADS_DIR = ".uploads"
MAX_BYTES = 50 * 2**20
"""Largest file that is taken; `.streamlit/config.toml` stops larger ones at the door."""

ENDINGS = tuple(ending.removeprefix(".") for ending in FORMATS)
"""What can be uploaded, by the ending of the name."""

PACKED = "gz"
"""A second ending of a file that is packed."""

ADAPTER_FILES = {"json": CONFIG_NAME, "safetensors": TENSORS_NAME}
"""The two files of an adapter, by the ending a browser sends them with, and what they are kept as."""

_DIGEST = re.compile(r"[0-9a-f]{12}\Z")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)\Z", re.IGNORECASE)
_MAX_STEM = 80


def checked_name(name: str) -> str:
    """Return a file name of letters, digits, `-` and `_` with one of the known endings; the folder part is dropped.

    Raises:
        DataError: when the ending is not one of `ENDINGS`.
    """
    last = re.split(r"[\\/]", name)[-1]
    packed = f".{PACKED}" if last.lower().endswith(f".{PACKED}") else ""
    stem, dot, ending = last[: len(last) - len(packed)].rpartition(".")
    if not dot or ending.lower() not in ENDINGS:
        printable = "".join(filter(str.isprintable, last))[:80]
        raise DataError(f"upload {printable!r}: the ending must be one of {endings_text()}; convert the file")
    plain = re.sub(r"[^0-9A-Za-z_]+", "-", stem).strip("-")[:_MAX_STEM]
    return f"{'data' if not plain or _RESERVED.match(plain) else plain}.{ending.lower()}{packed}"


def keep(runs_dir: Folder, name: str, content: bytes) -> Path:
    """Keep an uploaded file as `<runs_dir>/.uploads/<first 12 hex digits of its sha256>/<checked name>`.

    The same content is kept once; runs that were made from it still find it there.

    Args:
        runs_dir: folder of the runs; made when missing.
        name: what the browser calls the file; not trusted.
        content: the file.

    Raises:
        DataError: when it is empty or too large, or its ending is not known.
        CorruptRunError: when a link or another file lies in its place.
        StorageError: when the disk does not take it.
    """
    plain = checked_name(name)
    if not content:
        raise DataError(f"upload {plain}: the file is empty; add a header line and rows")
    if len(content) > MAX_BYTES:
        raise DataError(
            f"upload {plain}: has {len(content) / 2**20:.0f} MiB, more than {MAX_BYTES // 2**20} MiB; put the file on "
            "this machine and give its path"
        )
    digest = hashlib.sha256(content).hexdigest()[:12]
    folder = own_folder(own_folder(runs_root(runs_dir, make=True), UPLOADS_DIR), digest)
    path = folder / plain
    _keep_once(path, content)
    return path


def find(runs_dir: Folder, digest: str) -> Path | None:
    """Return the file kept under a digest that came from an address; None when there is none."""
    folder = _kept_folder(runs_dir, digest)
    if folder is None:
        return None
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]
    return next((path for path in files if is_table(path) and path.name not in ADAPTER_FILES.values()), None)


def keep_adapter(runs_dir: Folder, files: Mapping[str, bytes]) -> Path:
    """Keep the two files of an uploaded adapter in a folder of their own, named by the digest of both.

    Args:
        runs_dir: folder of the runs; made when missing.
        files: name in the browser, not trusted, to content: the two by their names, beside whatever else the folder
            held, or else two files of which one ends in .json and one in .safetensors.

    Raises:
        DataError: when it is not one file of each kind, or one is empty or too large.
        CorruptRunError: when a link or another file lies in their place.
        StorageError: when the disk does not take them.
    """
    named = {name: files[name] for name in ADAPTER_FILES.values() if name in files}
    chosen = named if len(named) == len(ADAPTER_FILES) else files
    content = {name.rpartition(".")[2].lower(): data for name, data in chosen.items()}
    if set(content) != set(ADAPTER_FILES) or len(chosen) != len(ADAPTER_FILES):
        required = " and ".join(ADAPTER_FILES.values())
        raise DataError(f"{len(files)} files uploaded; an adapter has two, {required}; select both together")
    for ending, data in content.items():
        if not 0 < len(data) <= MAX_BYTES:
            raise DataError(
                f"upload {ADAPTER_FILES[ending]}: has {len(data):,} bytes, at most {MAX_BYTES // 2**20} MiB are "
                "allowed; "
                "open a larger adapter with `dynlora inspect FOLDER`"
            )
    total = hashlib.sha256(b"".join(hashlib.sha256(content[ending]).digest() for ending in ADAPTER_FILES))
    folder = own_folder(own_folder(runs_root(runs_dir, make=True), UPLOADS_DIR), total.hexdigest()[:12])
    for ending, name in ADAPTER_FILES.items():
        _keep_once(folder / name, content[ending])
    return folder


def find_adapter(runs_dir: Folder, digest: str) -> Path | None:
    """Return the folder of the adapter kept under a digest that came from an address; None when there is none."""
    folder = _kept_folder(runs_dir, digest)
    files = [] if folder is None else [folder / name for name in ADAPTER_FILES.values()]
    return folder if files and all(path.is_file() and not path.is_symlink() for path in files) else None


def _kept_folder(runs_dir: Folder, digest: str) -> Path | None:
    """Return the folder of a digest, None when there is none of its own."""
    if not _DIGEST.match(digest):
        return None
    base = runs_root(runs_dir) / UPLOADS_DIR
    folder = base / digest
    return None if base.is_symlink() or folder.is_symlink() or not folder.is_dir() else folder


def _keep_once(path: Path, content: bytes) -> None:
    """Write a file unless it lies there already."""
    with storing(f"upload {path.name}"):
        if path.is_symlink() or (path.exists() and (not path.is_file() or path.read_bytes() != content)):
            raise CorruptRunError(
                f"{path} is not the file that was uploaded under this name; remove it and upload again"
            )
        if not path.exists():
            write_bytes(path, content)
