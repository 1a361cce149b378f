"""Decodes at work, for pages that look at them again and again: kept here, and brought up to date at each look."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from dynlora.kinds.decode.result import Decode, SoFar, read_decode

MOST_KEPT = 8
"""Decodes that are kept; what was looked at longest ago is forgotten."""


@dataclass
class _Kept:
    """What was read of a decode, and the lock of whoever reads on."""

    so_far: SoFar = field(default_factory=SoFar)
    lock: threading.Lock = field(default_factory=threading.Lock)


class GrowingDecodes:
    """What was read of decodes so far, over all viewers of a server."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def read(self, folder: str | os.PathLike[str]) -> Decode:
        """Return what a decode has recorded so far; only what is new is read.

        Raises:
            RunNotFoundError: when there is no such run.
            CorruptRunError: when it cannot be read.
        """
        kept = self._of(os.path.realpath(folder))
        with kept.lock:
            return read_decode(folder, kept.so_far)

    def _of(self, folder: str) -> _Kept:
        with self._lock:
            kept = self._kept.setdefault(folder, _Kept())
            self._kept.move_to_end(folder)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return kept
