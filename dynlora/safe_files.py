"""The one place that opens files somebody else may have put there, and that writes files whole or not at all.

A guarded open follows no link, waits for no pipe, takes no folder and no device, and reads no more than a limit. An
atomic write goes aside, to the disk, and takes the name in one step, so that a reader sees the old file or the new one.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

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
    """Return a small JSON object, its texts clean; empty when the file is missing, no plain file, too large or none."""
    with suppress(ValueError, RecursionError):
        text = read_plain(path, _MAX_JSON_BYTES) or "{}"
        found = json.loads(text)
        if isinstance(found, dict):
            is_clean = "\\u" not in text  # a lone surrogate can only be an escape: the bytes are UTF-8
            return found if is_clean else json.loads(clean_text(json.dumps(found, ensure_ascii=False)))
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


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8 with the line ends as they are.

    Raises:
        OSError: when the disk refuses; the old file stays.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: aside, to the disk, then renamed over the old one; nobody may run it.

    Raises:
        OSError: when the disk refuses; the old file stays.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _GUARD, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of files, to the disk; some systems cannot open a folder for it."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def clean_text(text: str) -> str:
    """Return the text with a question mark in the place of each lone surrogate, which nothing can encode."""
    return text if is_text(text) else text.encode("utf-8", "replace").decode("utf-8")


def is_text(text: str) -> bool:
    """Say whether text can be encoded: a lone surrogate, half of a character, cannot."""
    try:
        return text.isascii() or bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def as_text(value: object) -> str:
    """Return a value as text for a message; of a whole number that is too long for that, its number of digits."""
    try:
        return str(value)
    except (ValueError, RecursionError):
        if isinstance(value, int):
            return f"a whole number of {int(value.bit_length() * math.log10(2)) + 1:,} digits"
        return f"a {type(value).__name__} that cannot be shown"


def printable(text: object, limit: int = 80) -> str:
    """Return text of an untrusted file for a message: printable, on one line, cut to `limit` characters."""
    plain = "".join(filter(str.isprintable, as_text(text)))
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


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
