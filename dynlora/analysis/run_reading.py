"""One run as it is, read once: what a report shows and what the health checks look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis import capacity_frames, flows, run_summary, signals
from dynlora.analysis import modules as kit_modules
from dynlora.analysis.health_checks import Evidence
from dynlora.store import queries
from dynlora.store.reader import RunReader
from dynlora.store.run import open_run
from dynlora.store.summary import RunSummary

POINTS = 600
"""Most points of a number's series."""

CELLS = 12_000
"""Most cells of a heat map: modules times columns."""

CHECKED_COLUMNS = 64
"""Steps of a signal that the health checks look at."""


@dataclass(frozen=True)
class RunReading:
    """A run, each part of it read when it is first asked for and then kept.

    Every attribute raises `DynloraError` when the run cannot be read.

    Attributes:
        folder: of the run.
    """

    folder: Path

    @cached_property
    def summary(self) -> RunSummary:
        """As `queries.run_summary` returns it."""
        return queries.run_summary(self.folder)

    @cached_property
    def modules(self) -> pd.DataFrame:
        """As `capacity.described` returns them."""
        return kit_modules.described(queries.modules_frame(self.folder))

    @cached_property
    def recorded(self) -> list[str]:
        """Names of the signals that hold anything."""
        return open_run(self.folder).recorded()

    @cached_property
    def signals(self) -> dict[str, signals.About]:
        """What is said of each signal over modules that was recorded, by name."""
        return signals.known(self.summary, list(recorded_over(self.folder, "module")))

    @cached_property
    def scalars(self) -> pd.DataFrame:
        """All numbers over the steps, as `queries.scalars_frame` returns them."""
        return queries.scalars_frame(self.folder, None, None, POINTS)

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """Events of the evaluations."""
        return queries.events_frame(self.folder, ("evaluate",))

    @cached_property
    def reallocations(self) -> pd.DataFrame:
        """Events of the reallocations."""
        return queries.events_frame(self.folder, ("reallocate",))

    @cached_property
    def event_steps(self) -> list[int]:
        """Steps of the reallocations that moved something."""
        return capacity_frames.event_steps(self.reallocations)

    @cached_property
    def columns(self) -> int:
        """Most columns of a heat map of this run."""
        return int(np.clip(CELLS // max(len(self.modules), 1), 40, 400))

    def heat(self, signal: str, columns: int | None = None) -> queries.HeatMap | None:
        """Return a signal in bins, as `queries.heatmap` does; None when it was never recorded."""
        try:
            found = queries.heatmap(self.folder, signal, columns or self.columns)
        except KeyError:
            return None
        return found if found.points else None

    def frame(self, signal: str, columns: int | None = None) -> pd.DataFrame:
        """Return the values of `heat`, empty when there are none."""
        found = self.heat(signal, columns)
        return pd.DataFrame() if found is None else found.frame

    def at_ends(self, signal: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return a signal's first and last values, by module as recorded; None when it was never recorded."""
        heat = self.heat(signal)
        if heat is None:
            return None
        first = queries.heatmap(self.folder, signal, 1, None, int(heat.first_step[0]) + 1)
        return first.frame.to_numpy(float)[:, -1], heat.frame.to_numpy(float)[:, -1]

    def ranks_at(self, steps: list[int]) -> pd.DataFrame:
        """Return the ranks at some steps: one row per module as recorded, one column per step."""
        return queries.signal_at(self.folder, "rank", steps)

    @cached_property
    def budget(self) -> pd.DataFrame:
        """Use of the budget by step, as `capacity.budget_line` returns it."""
        params = self.summary["params"]
        counted = run_summary.series(self.scalars, "adapter_parameters", "train")
        if len(counted):
            return kit_modules.recorded_line(counted, params.get("budget"), None, None)
        gates = int(params.get("gate") or 0)
        return kit_modules.budget_line(self.frame("rank"), self.modules, gates, params.get("budget"))

    def traced(self) -> tuple[pd.DataFrame, flows.Balance]:
        """Return what moved in the whole run, as `flows.trace` does, and the check of both sides."""
        ranks = self.ranks_at(sorted({0, *self.event_steps, self.summary["step"]}))
        found = flows.trace(self.modules, queries.rank_moves(self.folder), ranks)
        return found, flows.balance(found, self.modules, ranks)

    def last(self, signal: str) -> np.ndarray | None:
        """Return the last vector of a signal over examples, None when it was never recorded."""
        frame = self.frame(signal, 1)
        return None if frame.empty else frame.to_numpy(float)[:, -1]

    @cached_property
    def evidence(self) -> Evidence:
        """What the health checks ask for."""
        summary = self.summary
        evaluated = run_summary.evaluation(self.evaluations)
        counts = run_summary.confusion(evaluated[1]) if evaluated else None
        planned, warnings = summary.get("planned_events"), summary.get("data_warnings")
        first = summary.get("first_reallocation")
        return Evidence(
            step=summary["step"],
            max_steps=summary["max_steps"],
            first_reallocation=first if isinstance(first, int) else summary["max_steps"],
            planned_events=planned if isinstance(planned, int) else None,
            budget=summary["params"].get("budget"),
            modules=self.modules,
            line=self.budget,
            ranks=self.frame("rank", CHECKED_COLUMNS),
            importance=self.frame("importance", CHECKED_COLUMNS),
            gates=self.frame("gate", CHECKED_COLUMNS),
            group_gates=queries.gates_by_group(self.folder),
            reallocations=self.reallocations,
            loss=run_summary.series(queries.scalars_frame(self.folder, "loss", "train", 1000), "loss", "train"),
            confusion=counts[0] if counts else None,
            evaluated_at=evaluated[0] if evaluated else 0,
            has_classes=bool(summary.get("labels")) or not summary.get("task"),
            data_warnings=[str(words) for words in warnings] if isinstance(warnings, list) else [],
        )


def recorded_over(folder: Path, axis: str) -> dict[str, str]:
    """Return the signals that hold anything and run over modules, components or another axis: name to unit.

    Raises:
        DynloraError: when the run cannot be read.
    """
    with RunReader(folder) as reader:
        rows = reader.signals()
        return {name: rows[name].unit for name in reader.recorded() if rows[name].axis == axis}


def machine(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions and the machine that a run was made with, in words."""
    return {str(key).replace("_", " "): str(value) for key, value in (summary.get("machine") or {}).items()}
