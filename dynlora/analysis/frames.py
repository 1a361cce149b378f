"""What frames give, under the types it has, and questions to the store that figures need answered."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from dynlora.errors import CorruptRunError
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import kind_labels


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame whose columns are named by text."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def at_highest(values: pd.Series) -> Any:
    """Return where in its index a series is highest, for `loc`; the first of equals, and of gaps alone the first."""
    return values.index[0] if values.isna().all() else values.idxmax()


def at_lowest(values: pd.Series) -> Any:
    """Return where in its index a series is lowest, for `loc`; the first of equals, and of gaps alone the first."""
    return values.index[0] if values.isna().all() else values.idxmin()


SMOOTHING = {"none": 0.0, "usual": 1 / 15, "strong": 1 / 5}
"""How much of a line an exponential mean covers, by name."""


def smoothed(values: pd.Series, smoothing: str = "usual") -> pd.Series:
    """Return an exponential mean over a fraction of the points, at least three of them; see `SMOOTHING`."""
    share = SMOOTHING[smoothing]
    return values.ewm(span=max(3, len(values) * share), ignore_na=True).mean() if share else values


ROUNDED = 2e-6
"""What a rounded number of single precision may lack to it."""

MOST_PLACES, SMALL = 4, 0.01
"""Most decimal places of a column, and the size below which a column shows significant digits instead."""


def number_format(values: pd.Series) -> str:
    """Return the one format of a column of numbers: whole with thousands apart, else with equally many places."""
    known = values.to_numpy(float, na_value=np.nan)
    known = known[np.isfinite(known)]
    if not (known % 1).any():
        return "localized"
    if np.median(np.abs(known[known != 0])) < SMALL:
        return "%.3g"
    places = next(
        (n for n in range(1, MOST_PLACES) if np.allclose(known, known.round(n), rtol=0, atol=ROUNDED)), MOST_PLACES
    )
    return f"%.{places}f"


_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV; text that would start a formula gets a leading apostrophe, numbers stay."""
    safe = pd.DataFrame({position: frame.iloc[:, position].map(_plain) for position in range(frame.shape[1])})
    safe.columns = pd.Index([_plain(column) for column in frame.columns])
    return safe.to_csv(index=False)


def _plain(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def described(modules: pd.DataFrame) -> pd.DataFrame:
    """Return the modules, by kind and then depth, with what pages show of them.

    Added columns: position (as recorded), label (short word of the kind), short (label and layer), cost (parameters of
    one component).
    """
    frame = modules.reset_index(drop=True)
    labels = kind_labels(frame["kind"])
    frame = frame.assign(
        position=np.arange(len(frame)),
        label=frame["kind"].map(labels),
        cost=frame["d_in"] + frame["d_out"],
        turn=frame["kind"].map({kind: i for i, kind in enumerate(labels)}),
    )
    frame["short"] = [
        label if pd.isna(layer) else f"{label} {layer}"
        for label, layer in zip(frame["label"], frame["layer"], strict=True)
    ]
    return frame.sort_values(["turn", "layer", "position"], kind="stable").drop(columns="turn").reset_index(drop=True)


def budget_line(ranks: pd.DataFrame, modules: pd.DataFrame, gates: int, budget: int | None) -> pd.DataFrame:
    """Return the fraction of the budget in use by step: columns step, parameters, share.

    Args:
        ranks: one row per module as recorded, one column per step.
        modules: as `described` returns them.
        gates: parameters of the gates.
        budget: the limit, in parameters; None leaves the fraction empty.
    """
    if not ranks.shape[1]:
        return pd.DataFrame({"step": [], "parameters": [], "share": []})
    cost = modules.sort_values("position")["cost"].to_numpy(float)
    used = ranks.to_numpy(float).T @ cost + gates if len(cost) == len(ranks) else np.full(ranks.shape[1], np.nan)
    share = used / budget if budget else np.full(len(used), np.nan)
    return pd.DataFrame({"step": ranks.columns.to_numpy(), "parameters": used, "share": share})


def recorded_line(series: pd.DataFrame, budget: int | None, first: int | None, last: int | None) -> pd.DataFrame:
    """Return a budget line, as `budget_line` does, from the recorded parameters in use, columns step and value.

    Args:
        series: the recorded numbers.
        budget: the limit, in parameters; None leaves the fraction empty.
        first: of the steps shown; None for the run's.
        last: of the steps shown; None for the run's.
    """
    low, high = (0 if first is None else first), (np.inf if last is None else last)
    window = series[(series["step"] >= low) & (series["step"] <= high)]
    used = window["value"].to_numpy(float)
    share = used / budget if budget else np.full(len(used), np.nan)
    return pd.DataFrame({"step": window["step"].to_numpy(), "parameters": used, "share": share})


def parameters(line: pd.DataFrame) -> pd.DataFrame:
    """Return a budget line as columns step and value, in parameters."""
    return line.rename(columns={"parameters": "value"})[["step", "value"]]


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
        return described(queries.modules_frame(folder))

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
        self, folder: Path, summary: RunSummary, first: int | None = None, last: int | None = None
    ) -> pd.DataFrame:
        """Return how much of the budget was in use from step `first` to `last`, as `frames.budget_line` does.

        Raises:
            DynloraError: when the run cannot be read.
        """
        params = summary.params
        counted = self.ask(queries.scalars_frame, folder, "adapter_parameters", "train", COLUMNS)
        if len(counted):
            return recorded_line(counted, params.get("budget"), first, last)
        try:  # runs of earlier versions: what components cost in plain LoRA
            ranks = self.ask(queries.heatmap, folder, "rank", COLUMNS, first, None if last is None else last + 1).frame
        except KeyError:
            ranks = pd.DataFrame()
        return budget_line(ranks, self.modules(folder), int(params.get("gate") or 0), params.get("budget"))


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
