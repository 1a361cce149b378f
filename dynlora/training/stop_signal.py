"""A stop that was asked for: remembered until the step is done."""

from __future__ import annotations

import logging
import signal
import threading
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)


@dataclass
class StopRequest:
    """Remembers a SIGINT or SIGTERM until the step is done; a second one ends the process at once.

    Attributes:
        signal: number of the signal that came, 0 for none.
    """

    signal: int = 0
    _before: dict[int, Any] = field(default_factory=dict)

    def __enter__(self) -> StopRequest:
        """Listen; signals reach the main thread only."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the old handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Say whether a stop was asked for."""
        return self.signal != 0

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
        logger.warning("stopping after this step; the state is kept, `dynlora resume` goes on from it")
