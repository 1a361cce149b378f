"""A stream that falls silent once nobody reads it: a closed terminal or pipe must not end a training run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

import psutil
import torch


class QuietStream:
    """Passes text on until that fails for the first time, and drops it from then on."""

    def __init__(self, stream: TextIO) -> None:
        """Wrap `stream`."""
        self._stream = stream
        self._is_open = True

    def write(self, text: str) -> int:
        """Write, or drop the text; return its length."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush, while somebody reads."""
        self._try("flush")

    def _try(self, method: str, *arguments: Any) -> None:
        if self._is_open:
            try:
                getattr(self._stream, method)(*arguments)
            except (OSError, ValueError):  # a broken pipe, or a stream that was closed
                self._is_open = False

    def __getattr__(self, name: str) -> Any:
        """Answer everything else as the stream does."""
        return getattr(self._stream, name)


EVERY_S = 5.0
"""Seconds between readings."""

MIB = 2**20


class Reads(Protocol):
    """Takes readings; the run store's writer is one."""

    def system(self, values: Mapping[str, float]) -> None:
        """Keep readings of one moment."""


class Readings:
    """Reads this process's memory and load, at most every `EVERY_S` seconds."""

    def __init__(self, recorder: Reads, every_s: float = EVERY_S) -> None:
        """Read nothing yet; the load is counted from here on."""
        self.recorder = recorder
        self.every_s = every_s
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the count
        self._next = time.monotonic()

    def take(self) -> bool:
        """Record a reading when one is due: rss_mib, cpu_percent (100 is one core), gpu_memory_mib on a GPU.

        Returns:
            Whether one was due.
        """
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self.every_s
        values = {"rss_mib": self._process.memory_info().rss / MIB, "cpu_percent": self._process.cpu_percent()}
        if torch.cuda.is_available():
            values["gpu_memory_mib"] = torch.cuda.memory_allocated() / MIB
        self.recorder.system(values)
        return True
