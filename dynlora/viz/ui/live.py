"""Parts of a page that are drawn again and again while a run trains: the longer a look takes, the rarer it is."""

from __future__ import annotations

import functools
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import streamlit as st

from dynlora.errors import DynloraError, system_error, system_message
from dynlora.text import markdown_text

KEPT = "toasts"
"""Key of the session under which messages wait for the next drawing."""


def announce(text: str, icon: str = ":material/check:") -> None:
    """Keep a message, plain text, for the next drawing of the page or of a fragment that follows a run.

    What is drawn before a rerun goes with the old page. What a callback of a fragment draws takes the place of the
    first elements of the page, its style sheet among them: a callback announces, and draws nothing.
    """
    st.session_state.setdefault(KEPT, []).append((text, icon))


def show_toasts() -> None:
    """Show the messages that were kept, each once."""
    for text, icon in st.session_state.pop(KEPT, []):
        st.toast(markdown_text(text, 200), icon=icon)


Draw = TypeVar("Draw", bound=Callable[..., None])


@contextmanager
def guarded() -> Iterator[None]:
    """Show an error of dynlora's, or of the system, as its one sentence and end the page."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, DynloraError) and system_error(error) is None:
            raise
        st.error(refusal(error))
        st.stop()


def refusal(error: Exception) -> str:
    """Return the one sentence of an error for a page; one of the system names the file."""
    refused = system_error(error)
    return markdown_text(error if refused is None else system_message(refused), 2000)


def fragment(run_every: float | None) -> Callable[[Draw], Draw]:
    """Return a decorator for a part of a page that is drawn again alone: what it cannot draw is a sentence there.

    `st.fragment` alone shows what leaves the part as a defect, also within a page that is guarded.

    Args:
        run_every: seconds between two drawings; None where only what is pressed in it draws it again.
    """

    def decorate(draw: Draw) -> Draw:
        @st.fragment(run_every=run_every)
        @functools.wraps(draw)
        def look(*arguments: Any, **options: Any) -> None:
            show_toasts()  # of callbacks: a part that is drawn again does not draw the page around it
            with guarded():
                draw(*arguments, **options)

        return look  # pyright: ignore[reportReturnType] - it takes what `draw` takes

    return decorate


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
