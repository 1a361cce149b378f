"""A stop that was asked for: remembered until the step is done; asking again changes nothing."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

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
