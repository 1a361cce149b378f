"""The one place that opens files somebody else may have put there, and that writes files whole or not at all.

A guarded open follows no link, waits for no pipe, takes no folder and no device, and reads no more than a limit. An
atomic write goes aside, to the disk, and takes the name in one step, so that a reader sees the old file or the new one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from dynlora.errors import ConfigError, storing
from dynlora.text import clean_text

_GUARD = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MAX_JSON_BYTES = 65_536


class NotPlainFileError(OSError):
    """There is something, but it is a link, a folder, a pipe or a device."""


def open_plain(path: str | Path) -> tuple[BinaryIO, int]:
    """Open a plain file for reading and return it with its size in bytes.

    Raises:
        NotPlainFileError: when it is a link, a folder, a pipe or a device.
        OSError: when it is missing or cannot be opened.
        ValueError: when its name cannot be one of a file.
    """
    descriptor = _descriptor(path, os.O_RDONLY)
    return os.fdopen(descriptor, "rb"), os.fstat(descriptor).st_size


def read_plain(path: str | Path, limit: int) -> str | None:
    """Return the text of a plain file, None when it is missing, no plain file, too large or no UTF-8.

    Args:
        path: the file.
        limit: most bytes it may have.
    """
    try:
        file, _ = open_plain(path)
        with file:
            data = file.read(limit + 1)
        return data.decode("utf-8") if len(data) <= limit else None
    except (OSError, ValueError):
        return None


def read_json(path: str | Path) -> dict[str, Any]:
    """Return a small JSON object with clean texts; empty where no plain file of its size holds one."""
    with suppress(ValueError, RecursionError):
        text = read_plain(path, _MAX_JSON_BYTES) or "{}"
        value: Any = json.loads(text)
        if isinstance(value, dict):
            is_clean = "\\u" not in text  # a lone surrogate can only be an escape: the bytes are UTF-8
            value = cast(dict[str, Any], value)
            return value if is_clean else json.loads(clean_text(json.dumps(value, ensure_ascii=False)))
    return {}


def tail(path: str | Path, size: int = 4000) -> str:
    """Return the last `size` bytes of a log as text, empty when it cannot be read."""
    with suppress(OSError, ValueError):
        file, length = open_plain(path)
        with file:
            file.seek(max(0, length - size))
            return file.read(size).decode("utf-8", "replace").strip()
    return ""


def open_log(path: Path) -> int:
    """Return a descriptor that appends to a plain file, made when missing; whoever gets it closes it.

    Raises:
        NotPlainFileError: when something else is in its place.
        OSError: when it cannot be opened.
    """
    descriptor = _descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if sys.platform != "win32":
        os.set_blocking(descriptor, True)
    return descriptor


KINDS: Mapping[int, str] = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What a path may lead to, by the type in its mode."""


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How an address begins, also after it was taken for a path, which has no double slash."""


def path_of(argument: str, value: Any) -> Path:
    """Return the path that a function was given.

    Raises:
        ConfigError: when it is none.
    """
    try:
        return Path(value)
    except TypeError:
        raise ConfigError(f"{argument}={value!r:.60}: must be a path; give that of a file or folder") from None


def kind_of_file(path: str | Path) -> str:
    """Return what a path leads to, links followed, in words; empty where nothing is.

    Raises:
        OSError: when the system refuses to look: the name is too long, links lead in a circle, a folder is closed.
    """
    try:
        return KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "no file")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def why_not_a_file(path: str | Path) -> str:
    """Return why a path cannot be read as a file, and the remedy, for the end of a message; empty where it can be.

    Raises:
        OSError: as `kind_of_file`.
    """
    kind = kind_of_file(path)
    if not kind and _ADDRESS.match(str(path)):
        return "is an address, not a file of this machine; download it and give the file"
    if not kind:
        return "does not exist; check the path"
    return "" if kind == KINDS[stat.S_IFREG] else f"is {kind}, not a file; give a file"


def output_file(path: str | Path, argument: str = "") -> Path:
    """Return the file that a path of a user leads to: nothing is there yet, or a plain file, which may be replaced.

    Args:
        path: as it was given; links are followed.
        argument: that it was given as, such as --out.

    Raises:
        ConfigError: when a device, a pipe, a folder or anything else is there, which a file would take the place of.
        OSError: as `kind_of_file`; when its folder is missing or closed.
    """
    kind, target = kind_of_file(path), Path(os.path.realpath(path))
    if not kind and not target.parent.is_dir():
        raise OSError(errno.ENOENT, "its folder does not exist", str(path))
    if not os.access(target.parent, os.W_OK):
        raise OSError(errno.EACCES, "its folder cannot be written to", str(path))
    if kind not in ("", KINDS[stat.S_IFREG]):
        link = f"a link to {target}, " if os.path.islink(path) else ""
        raise ConfigError(f"{argument} {path}: is {link}{kind}, which is not written over; give a file".lstrip())
    return target


def is_empty(folder: Path) -> bool:
    """Say whether a folder holds nothing."""
    return not any(folder.iterdir())


def output_folder(path: str | Path, argument: str, may_take: Callable[[Path], bool] | None = is_empty) -> Path:
    """Return the folder that a path of a user leads to: nothing is there yet, or a folder that may take more files.

    Args:
        path: as it was given; links are followed.
        argument: that it was given as, such as --out.
        may_take: says so of a folder that is there, by default of an empty one; None: of none.

    Raises:
        ConfigError: when something else is there.
        OSError: as `kind_of_file`.
    """
    kind, target = kind_of_file(path), Path(os.path.realpath(path))
    if kind == KINDS[stat.S_IFDIR] and may_take is not None:
        kind = "" if may_take(target) else "not an empty folder"
    if kind:
        raise ConfigError(f"{argument} {path}: exists and is {kind}; give another name")
    return target


def write_output(path: str | Path, content: bytes) -> None:
    """Write a file at a path of a user, whole or not at all; see `output_file` for what may be there.

    Raises:
        ConfigError: when something else than a file is there.
        StorageError: when the disk refuses; the old file stays.
    """
    with storing(str(path)):
        write_bytes(output_file(path), content)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8 with the line ends as they are.

    Raises:
        OSError: when the disk refuses; the old file stays.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: aside, to the disk, then renamed over the old one; nobody may run it.

    What is there is replaced, whatever it is; a path that a user gave goes through `output_file` first.

    Raises:
        OSError: when the disk refuses, with `path` as its file; the old file stays.
    """
    aside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}")  # cut: a name may have 255 bytes
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _GUARD, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


@contextmanager
def making_folder(folder: Path) -> Generator[None]:
    """Make a folder, and those above it, for a block; what was missing is removed again where the block fails.

    Raises:
        OSError: when it cannot be made.
    """
    missing = [level for level in (folder, *folder.parents) if not level.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for level in missing:
            with suppress(OSError):  # somebody has put something into it meanwhile
                level.rmdir()
        raise


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of files, to the disk; some systems cannot open a folder for it."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _descriptor(path: str | Path, flags: int) -> int:
    """Return a descriptor of a plain file; opening a pipe must not wait for its other end."""
    try:
        descriptor = os.open(path, flags | _GUARD, 0o644)
    except OSError as error:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise NotPlainFileError(error.errno, "it is not a regular file", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotPlainFileError(0, "it is not a regular file", str(path))
    return descriptor
