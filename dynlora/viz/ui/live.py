"""Parts of a page that are drawn again and again while a run trains: the longer a look takes, the rarer it is."""

from __future__ import annotations

import functools
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import streamlit as st

from dynlora.viz.ui.guard import fragment

SHARE = 5
"""A look may take at most a fifth of the time: pages share the machine with the training that they show."""

LOOKS, ENOUGH = 9, 3
"""The median of so many looks decides, and nothing before there are enough: a first look fills caches."""

SLOWEST_S = 60.0
"""Longest pause between two looks, seconds."""


T = TypeVar("T")


class Paces:
    """How long the last looks at each part of a run's pages took, over all viewers of this server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._took: dict[str, deque[float]] = {}

    def keep(self, part: str, seconds: float) -> None:
        """Remember how long a look took."""
        with self._lock:
            self._took.setdefault(part, deque(maxlen=LOOKS)).append(seconds)

    def pause(self, part: str, least: float) -> float:
        """Return the seconds between two looks: `least`, doubled until a look takes at most `1 / SHARE` of them."""
        with self._lock:
            took = list(self._took.get(part, ()))
        needed = statistics.median(took) * SHARE if len(took) >= ENOUGH else 0.0
        return least if needed <= least else min(SLOWEST_S, least * 2 ** math.ceil(math.log2(needed / least)))


PACES = Paces()


def reused(first: T, again: Callable[[], T]) -> Callable[[], T]:
    """Return a function that answers `first` once and asks again from then on.

    For a part that is drawn again and again: whether it must be is known from the answer that its first look shows.
    """
    values = [first]
    return lambda: values.pop() if values else again()


def following(least: float, *, active: bool) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Make a function that draws a part of a page into one that is drawn again while `active`.

    Args:
        least: seconds between two looks where they are quick; see `Paces.pause` for where they are not.
        active: whether what is drawn still changes; if not, the part is drawn once.
    """

    def decorate(draw: Callable[[], None]) -> Callable[[], None]:
        part = f"{draw.__code__.co_filename}:{draw.__qualname__} of {st.query_params.get('run')}"
        pause = PACES.pause(part, least) if active else None
        looks = 0

        @fragment(run_every=pause)
        @functools.wraps(draw)
        def look() -> None:
            nonlocal looks
            looks += 1
            start = time.perf_counter()
            draw()
            PACES.keep(part, time.perf_counter() - start)
            if pause is not None and looks > 1 and not pause / 4 < PACES.pause(part, least) < pause * 2:
                st.rerun()  # streamlit takes a new pause with a whole run only

        return look

    return decorate
