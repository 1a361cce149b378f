"""Errors of a page, and of each part that is drawn again alone, turned into one sentence."""

from __future__ import annotations

import functools
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
