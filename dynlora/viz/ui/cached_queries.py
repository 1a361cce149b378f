"""Questions to the store, answered once per change of a run: kept by what the store itself says is its version."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dynlora.errors import CorruptRunError
from dynlora.store import queries
from dynlora.store.run import open_run
from dynlora.viz.kit import modules as kit_modules
from dynlora.viz.kit.run_summary import ACTIVE

COLUMNS = 400
"""Most columns of a heat map that travel to the browser."""


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
def _answer(name: str, folder: str, version: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
    return getattr(queries, name)(folder, *arguments)


def ask(query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """Return what a query of the store says of a run; asked again only when the run has something new.

    Raises:
        DynloraError: when the run cannot be read.
        KeyError: when it holds no such signal.
    """
    return _answer(query.__name__, str(folder), version(folder), arguments)


def ask_events(query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """Return what a query says of a run that only an event can change, such as an evaluation; not asked every step.

    Raises:
        DynloraError: when the run cannot be read.
        KeyError: when it holds no such signal.
    """
    event, step, state, opened = version(folder)
    return _answer(query.__name__, str(folder), (event, min(step, 1), state, opened), arguments)


def live_summary(folder: Path, *, was_active: bool) -> dict[str, Any]:
    """Return a run as `queries.run_summary` does; once a run that was active has ended, the whole page is redrawn.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary = queries.run_summary(folder)
    if was_active and summary["status"] not in ACTIVE:
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
    return kit_modules.described(queries.modules_frame(folder))


def at_step(folder: Path, signal: str, step: int | None) -> np.ndarray | None:
    """Return the last values of a signal up to a step, None when it was never recorded.

    Before the first recorded step, and for step None, these are the first values.

    Raises:
        DynloraError: when the run cannot be read.
    """
    try:
        if step is not None:
            values = ask(queries.signal_at, folder, signal, (step,)).to_numpy(float)[:, 0]
            if np.isfinite(values).any():
                return values
        first = int(ask(queries.heatmap, folder, signal, COLUMNS).first_step[0])
        return ask(queries.heatmap, folder, signal, 1, None, first + 1).frame.to_numpy(float)[:, -1]
    except (KeyError, IndexError):
        return None


def ranks(folder: Path, step: int | None) -> np.ndarray:
    """Return the ranks of the modules at a step, as `at_step` does.

    Raises:
        DynloraError: when the run cannot be read or has recorded none.
    """
    found = at_step(folder, "rank", step)
    if found is None:
        raise CorruptRunError(f"run {folder.name} has recorded no ranks")
    return found


def budget(folder: Path, summary: Mapping[str, Any], first: int | None = None, last: int | None = None) -> pd.DataFrame:
    """Return how much of the budget was in use by step, as `capacity.budget_line` does, from `first` to `last`.

    Raises:
        DynloraError: when the run cannot be read.
    """
    params = summary["params"]
    counted = ask(queries.scalars_frame, folder, "adapter_parameters", "train", COLUMNS)
    if len(counted):
        return kit_modules.recorded_line(counted, params.get("budget"), first, last)
    try:  # runs of earlier versions: what components cost in plain LoRA
        ranks = ask(queries.heatmap, folder, "rank", COLUMNS, first, None if last is None else last + 1).frame
    except KeyError:
        ranks = pd.DataFrame()
    return kit_modules.budget_line(ranks, modules(folder), int(params.get("gate") or 0), params.get("budget"))
