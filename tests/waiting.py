"""Waiting for what must come true, not for seconds: quick where it is quick, patient where the machine is busy."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 300.0
"""Seconds after which what has not come true is taken never to: no claim of a test, only an end to waiting."""

PATIENCE_MS = 1000 * PATIENCE_S


def until(claim: Callable[[], object], what: str = "it", patience_s: float = PATIENCE_S, pause_s: float = 0.02) -> None:
    """Wait until a claim holds, and fail with its name when it never does."""
    deadline = time.monotonic() + patience_s
    while not claim():
        assert time.monotonic() < deadline, f"{what} did not come true in {patience_s:.0f} s"
        time.sleep(pause_s)
