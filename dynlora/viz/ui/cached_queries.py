"""Questions to the store, answered once per change of a run: kept by what the store itself says is its version."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import frames
from dynlora.analysis.frames import RunQueries, T
from dynlora.analysis.run_summary import ACTIVE
from dynlora.store import queries
from dynlora.store.run import open_run
from dynlora.store.summary import RunSummary

_LOOK = threading.local()


@contextmanager
def one_refresh() -> Iterator[None]:
    """Ask each run for its version once while the block lasts: all answers are of one moment, and come sooner."""
    before, _LOOK.versions = getattr(_LOOK, "versions", None), {}
    try:
        yield
    finally:
        _LOOK.versions = before


def version(folder: Path) -> tuple[int, int, str, int]:
    """Return `queries.version_key`, within `one_refresh` the one it was first."""
    seen = getattr(_LOOK, "versions", None)
    if seen is None:
        return queries.version_key(folder)
    if folder not in seen:
        seen[folder] = queries.version_key(folder)
    return seen[folder]


@st.cache_data(max_entries=300, ttl=3600, show_spinner=False)
def _answer(
    name: str, folder: str, version: tuple[Any, ...], arguments: tuple[Any, ...], _query: Callable[..., Any]
) -> Any:
    return _query(Path(folder), *arguments)


def _named(query: Callable[..., Any]) -> str:
    """Return the name under which the answers of a query are kept."""
    return f"{query.__module__}.{query.__qualname__}"


def ask(query: Callable[..., T], folder: Path, *arguments: Any) -> T:
    """Return what a query says of a run; asked again only when the run has something new.

    Raises:
        DynloraError: when the run cannot be read.
        KeyError: when it holds no such signal.
    """
    return _answer(_named(query), str(folder), version(folder), arguments, query)


def ask_events(query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """Return what a query says of a run that only an event can change, such as an evaluation; not asked every step.

    Raises:
        DynloraError: when the run cannot be read.
        KeyError: when it holds no such signal.
    """
    event, step, state, opened = version(folder)
    return _answer(_named(query), str(folder), (event, min(step, 1), state, opened), arguments, query)


def live_summary(folder: Path, *, was_active: bool) -> RunSummary:
    """Return a run as `queries.run_summary` does; once a run that was active has ended, the whole page is redrawn.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary = queries.run_summary(folder)
    if was_active and summary.status not in ACTIVE:
        st.rerun()
    return summary


def signal_names(folder: Path) -> list[str]:
    """Return the names of the signals a run has recorded at least once.

    Raises:
        DynloraError: when the run cannot be read.
    """
    return open_run(folder).recorded()


def modules(folder: Path) -> pd.DataFrame:
    """Return the modules as `capacity.described` does.

    Raises:
        DynloraError: when the run cannot be read.
    """
    event, step, state, opened = version(folder)
    return _described(str(folder), (min(event, 1), min(step, 1), state, opened))


@st.cache_data(max_entries=300, ttl=3600, show_spinner=False)
def _described(folder: str, version: tuple[Any, ...]) -> pd.DataFrame:
    return frames.described(queries.modules_frame(folder))


@st.cache_data(max_entries=100, ttl=3600, show_spinner=False)
def _made(name: str, folder: str, version: tuple[Any, ...], of: tuple[Any, ...], _make: Callable[[], Any]) -> Any:
    return _make()


class CachedQueries(RunQueries):
    """The questions of figures, answered once per change of a run."""

    def ask(self, query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
        """Return what `ask` does."""
        return ask(query, folder, *arguments)

    def ask_events(self, query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
        """Return what `ask_events` does."""
        return ask_events(query, folder, *arguments)

    def made(self, name: str, folder: Path, make: Callable[[], T], *of: Any) -> T:
        """Return what `make` makes, made once per change of the run."""
        return _made(name, str(folder), version(folder), of, make)

    def version(self, folder: Path) -> tuple[int, int, str, int]:
        """Return what `version` does."""
        return version(folder)

    def modules(self, folder: Path) -> pd.DataFrame:
        """Return what `modules` does."""
        return modules(folder)


CACHED = CachedQueries()
"""What pages hand to their figures."""

at_step = CACHED.at_step
