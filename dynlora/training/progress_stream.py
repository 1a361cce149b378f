"""What outlives a terminal: a progress stream that falls silent once nobody reads it, and the request to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TextIO

import psutil

from dynlora.store.schema import command_text

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Seconds between two looks at whether another machine asked for a stop."""


@dataclass
class StopRequest:
    """Remembers a SIGINT or SIGTERM until the step is done; further ones are answered, and change nothing.

    A person who presses Ctrl-C again is impatient, and a supervisor that sends SIGTERM again is careful: neither means
    to lose what was trained since the last checkpoint. `dynlora stop ID --now` does, and says what is lost.

    Attributes:
        folder: of the run, for the message.
        on_request: called once, when the first signal comes.
        is_asked: says whether somebody on another machine, who can send no signal, asked for a stop.
        signal: number of the signal that came, 0 for none.
    """

    folder: Path = Path()
    on_request: Callable[[], None] = lambda: None
    is_asked: Callable[[], bool] = lambda: False
    signal: int = 0
    _before: dict[int, Any] = field(default_factory=dict)
    _looked: float = field(default_factory=time.monotonic)

    def __enter__(self) -> StopRequest:
        """Take the signals over; they reach the main thread only."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the old handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Say whether a stop was asked for, by a signal or from another machine."""
        if not self.signal and time.monotonic() - self._looked >= LOOK_EVERY_S:
            self._looked = time.monotonic()
            if self.is_asked():
                self._remember(signal.SIGTERM, None)
        return self.signal != 0

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        """Note the first signal and say what happens; say of every further one that it changes nothing."""
        run_id, runs_dir = self.folder.name, self.folder.parent
        command = command_text("stop", run_id, "--now", runs_dir=runs_dir)
        end_now = f"`{command}` ends it at once and loses the steps since the last checkpoint"
        if self.signal:
            logger.warning("already stopping: the run first finishes and saves its step; %s", end_now)
            return
        self.signal = number
        logger.warning(
            "stopping: the run finishes and saves its step; `%s` continues it later; a second stop changes nothing; %s",
            command_text("resume", run_id, runs_dir=runs_dir),
            end_now,
        )
        self.on_request()


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
        import torch  # a run that is refused loads none

        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self.every_s
        values = {"rss_mib": self._process.memory_info().rss / MIB, "cpu_percent": self._process.cpu_percent()}
        if torch.cuda.is_available():
            values["gpu_memory_mib"] = torch.cuda.memory_allocated() / MIB
        self.recorder.system(values)
        return True
