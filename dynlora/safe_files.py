"""Small text files beside `run.db`, read as warily as it is: no links, no devices, no more than a limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_plain(path: str | Path, limit: int) -> str | None:
    """Return the text of a plain file, None when it is missing, a link, no plain file, too large or no UTF-8.

    Args:
        path: the file.
        limit: most bytes it may have.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        try:
            data = file.read(limit + 1)
            return data.decode("utf-8") if len(data) <= limit else None
        except (OSError, UnicodeError):
            return None
