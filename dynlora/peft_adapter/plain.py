"""Opening a stranger's file: a plain file of a bounded size, never a link, a device or a pipe."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from dynlora.errors import AdapterError

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_plain(path: Path) -> tuple[BinaryIO, int]:
    """Open a plain file and return it with its size in bytes.

    Raises:
        AdapterError: when it is missing, a link, or no plain file.
    """
    if path.is_symlink():
        raise AdapterError(f"{path}: a link, which is not followed; give a folder that holds the file itself")
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name cannot be used"
        raise AdapterError(f"{path}: cannot be opened ({reason}); give the folder of a PEFT adapter") from None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        raise AdapterError(f"{path}: not a plain file; give the folder of a PEFT adapter")
    return os.fdopen(descriptor, "rb"), about.st_size


def shown(text: object, limit: int = 80) -> str:
    """Return text of a stranger's file for a sentence: printable, on one line, cut."""
    plain = "".join(filter(str.isprintable, str(text)))
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
