"""Questions to the store that figures need answered: asked each time here, kept by pages in `viz/ui`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from dynlora.analysis import frames
from dynlora.errors import CorruptRunError
from dynlora.store import queries

T = TypeVar("T")

COLUMNS = 400
"""Most columns of a heat map that are drawn."""


class RunQueries:
    """Queries the store each time, so that a notebook sees what a run has recorded until now.

    Pages give their figures a subclass that keeps answers until a run has something new.
    """

    def ask(self, query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
        """Return what a query of the store says of a run.

        Raises:
            DynloraError: when the run cannot be read.
            KeyError: when it holds no such signal.
        """
        return query(folder, *arguments)

    def ask_events(self, query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
        """Return what a query says of a run that only an event can change, such as an evaluation.

        Raises:
            DynloraError: when the run cannot be read.
            KeyError: when it holds no such signal.
        """
        return query(folder, *arguments)

    def made(self, name: str, folder: Path, make: Callable[[], T], *of: Any) -> T:
        """Return what is made of a run.

        Args:
            name: of what is made.
            folder: of the run.
            make: makes it.
            of: what it depends on beside the run, plain values.
        """
        return make()

    def version(self, folder: Path) -> tuple[int, int, str, int]:
        """Return what changes when a run has something new.

        Raises:
            DynloraError: when the run cannot be read.
        """
        return queries.version_key(folder)

    def modules(self, folder: Path) -> pd.DataFrame:
        """Return the modules as `analysis.frames.described` does.

        Raises:
            DynloraError: when the run cannot be read.
        """
        return frames.described(queries.modules_frame(folder))

    def at_step(self, folder: Path, signal: str, step: int | None) -> np.ndarray | None:
        """Return the last values of a signal up to a step, None when it was never recorded.

        Before the first recorded step, and for step None, these are the first values.

        Raises:
            DynloraError: when the run cannot be read.
        """
        try:
            if step is not None:
                values = self.ask(queries.signal_at, folder, signal, (step,)).to_numpy(float)[:, 0]
                if np.isfinite(values).any():
                    return values
            first = int(self.ask(queries.heatmap, folder, signal, COLUMNS).first_step[0])
            return self.ask(queries.heatmap, folder, signal, 1, None, first + 1).frame.to_numpy(float)[:, -1]
        except (KeyError, IndexError):
            return None

    def ranks(self, folder: Path, step: int | None) -> np.ndarray:
        """Return the ranks of the modules at a step, as `at_step` does.

        Raises:
            DynloraError: when the run cannot be read or has recorded none.
        """
        ranks = self.at_step(folder, "rank", step)
        if ranks is None:
            raise CorruptRunError(f"run {folder.name} has recorded no ranks")
        return ranks

    def budget(
        self, folder: Path, summary: Mapping[str, Any], first: int | None = None, last: int | None = None
    ) -> pd.DataFrame:
        """Return how much of the budget was in use from step `first` to `last`, as `frames.budget_line` does.

        Raises:
            DynloraError: when the run cannot be read.
        """
        params = summary["params"]
        counted = self.ask(queries.scalars_frame, folder, "adapter_parameters", "train", COLUMNS)
        if len(counted):
            return frames.recorded_line(counted, params.get("budget"), first, last)
        try:  # runs of earlier versions: what components cost in plain LoRA
            ranks = self.ask(queries.heatmap, folder, "rank", COLUMNS, first, None if last is None else last + 1).frame
        except KeyError:
            ranks = pd.DataFrame()
        return frames.budget_line(ranks, self.modules(folder), int(params.get("gate") or 0), params.get("budget"))


class SnapshotQueries(RunQueries):
    """The questions about runs, each asked once: all that is made of the answers is of one moment."""

    def __init__(self) -> None:
        """Start without answers."""
        self._answer = cache(lambda query, folder, arguments: query(folder, *arguments))

    def ask(self, query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
        """Return what a query said of a run when it was first asked."""
        return self._answer(query, folder, arguments)

    def ask_events(self, query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
        """Return what `ask` does."""
        return self._answer(query, folder, arguments)
