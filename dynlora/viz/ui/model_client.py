"""Questions that only the trained model can answer: asked of the inference child, kept while the run stays as it is.

What takes long is a stream: it continues in the child, and is read while it grows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from dynlora.errors import DynloraError
from dynlora.inference.client import shared
from dynlora.jobs import warm
from dynlora.text import markdown_text
from dynlora.viz.ui.cached_queries import version
from dynlora.viz.ui.live import fragment
from dynlora.viz.ui.run_picker import is_read_only

POLL_S = 0.5
"""Seconds between two looks at a stream."""


@st.cache_data(max_entries=200, ttl=3600, show_spinner=False)
def _answer(folder: str, version: tuple[Any, ...], ask: str, arguments: str) -> Any:
    return shared().ask(ask, folder=folder, **json.loads(arguments))


def ask_model(folder: Path, ask: str, **arguments: Any) -> Any:
    """Return what a run's trained model says, None when it cannot; then the page says why and continues.

    Args:
        folder: of the run.
        ask: what, one of `answering.OPERATIONS`.
        arguments: JSON values; `which` is the last adapter unless it says otherwise.
    """
    try:
        with st.spinner("Running the model"):
            request = json.dumps({"which": "last", **arguments}, sort_keys=True)
            return _answer(str(folder), version(folder), ask, request)
    except DynloraError as error:
        st.error(markdown_text(str(error), 2000))
        return None


@dataclass
class Streamed:
    """Something that the model does a little at a time.

    Attributes:
        name: of the stream in the child; empty where it could not begin.
        messages: what it said so far, JSON objects.
        of: messages it will have at most; None where that is not known.
        ended: whether there will be no more.
        stopped: whether somebody stopped it.
        error: why it ended early or did not begin, a sentence, or None.
    """

    name: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    of: int | None = None
    ended: bool = False
    stopped: bool = False
    error: str | None = None

    def read(self) -> None:
        """Take what is new."""
        if not self.ended:
            self._take("read", since=len(self.messages))

    def stop(self) -> None:
        """End it; what it said is kept."""
        if not self.ended:
            self._take("end")

    def _take(self, ask: str, since: int = 0) -> None:
        try:
            state = shared().ask(ask, stream=self.name, since=since)
        except DynloraError as error:
            self.ended, self.error = True, str(error)
            return
        self.messages[since:] = state["messages"]  # several viewers may read one stream at once
        self.of, self.error = state["progress"]["of"], state["error"] and state["error"]["message"]
        self.ended, self.stopped = state["status"] != "running", state["status"] == "cancelled"


def begun(folder: Path, ask: str, **arguments: Any) -> Streamed:
    """Let a run's trained model begin something that takes long; what it cannot begin has ended with its error.

    Args:
        folder: of the run.
        ask: what, one of `answering.OPERATIONS`.
        arguments: JSON values; `which` is the last adapter unless it says otherwise.
    """
    try:
        return Streamed(shared().ask(ask, folder=str(folder), **{"which": "last", **arguments}))
    except DynloraError as error:
        return Streamed("", ended=True, error=str(error))


def begin(folder: Path, ask: str, **arguments: Any) -> Streamed:
    """Do as `begun` does, and say meanwhile that the model is loaded."""
    with st.spinner("Loading the model"):
        return begun(folder, ask, **arguments)


def in_background(key: str, label: str, unit: str, folder: Path, ask: str, **arguments: Any) -> list[dict[str, Any]]:
    """Draw what starts something that takes long, then its progress and what cancels it; return what it said at last.

    Empty until then. What was said is kept in the session as long as the same is asked of the same run.

    Args:
        key: of the elements.
        label: of the button.
        unit: what is counted, in the plural.
        folder: of the run.
        ask: what, one of `answering.OPERATIONS`.
        arguments: JSON values, as of `begin`.
    """
    place, question = f"background-{key}", json.dumps([str(folder), ask, arguments], sort_keys=True)
    before, stream = st.session_state.get(place, ("", None))
    if before != question:
        if stream is not None:
            stream.stop()
        stream = None
    if stream is None or stream.ended:
        if stream is not None and (stream.error or stream.stopped):
            _say_early_end(stream, unit)
        if (stream is None or stream.error or stream.stopped) and st.button(label, key=f"{place}-start"):
            st.session_state[place] = (question, begin(folder, ask, **arguments))
            st.rerun()
        return [] if stream is None or stream.error else stream.messages
    _progress(place, stream, unit)
    return []


@fragment(run_every=POLL_S)
def _progress(place: str, stream: Streamed, unit: str) -> None:
    """Draw how far a stream has come, again and again, and what cancels it."""
    stream.read()
    if stream.ended:
        st.rerun()
    stream_bar(stream, unit, "Cancel", f"{place}-cancel")


def stream_bar(stream: Streamed, unit: str, label: str, key: str) -> None:
    """Draw how far a stream has come, and the button that ends it.

    Args:
        stream: under way.
        unit: what is counted, in the plural.
        label: of the button.
        key: of the button.
    """
    done, of = len(stream.messages), max(1, stream.of or 1)
    st.progress(min(1.0, done / of), f"{done} of {of} {unit}")
    if st.button(label, icon=":material/stop:", key=key):
        stream.stop()
        st.rerun()


def _say_early_end(stream: Streamed, unit: str) -> None:
    if stream.error:
        st.error(markdown_text(stream.error, 2000))
    else:
        st.caption(f"Cancelled after {len(stream.messages)} of {stream.of} {unit}.")


def prepare_model() -> None:
    """Let the inference child begin to import, where the server keeps processes warm: a page opens that will ask it."""
    if warm.is_wanted():
        shared().prepare()


TOLD = ("model", "data", "seed")
"""Parts of a configuration that its tokens depend on."""


def keep(likely: Mapping[str, Any] | None = None) -> None:
    """Have a process ready that has imported torch, where this dashboard may start one.

    Args:
        likely: the configuration that may be asked for next: tokens of its data are made ahead.
    """
    if not is_read_only():
        warm.KEEPER.keep(None if likely is None else {name: likely[name] for name in TOLD if name in likely})
