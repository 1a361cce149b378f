"""`StoredRun`: what one run has recorded, as pandas frames."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynlora.store import queries
from dynlora.store.meta import config
from dynlora.store.reader import RunReader
from dynlora.store.schema import command_text

if TYPE_CHECKING:
    import pandas as pd


class StoredRun:
    """A run folder; each call reads what is there now, so a run can be watched while it trains."""

    def __init__(self, folder: Path) -> None:
        """Point at a run folder; use `open_run`, which checks it."""
        self.folder = folder

    def __repr__(self) -> str:
        """Return the id and the state of the run."""
        return f"Run({self.id!r}, status={self.status!r})"

    def _store(self, *tables: str) -> Path:
        """Return the folder of a store that holds at least these tables beside the small ones.

        A run that is elsewhere overrides this alone: it fetches them first.
        """
        return self.folder

    @property
    def id(self) -> str:
        """Id of the run."""
        return self.folder.name

    @property
    def address(self) -> str:
        """Where the run is: its folder, or the address it was sent to."""
        return str(self.folder)

    def command(self, name: str, *options: str) -> str:
        """Return a dynlora command on this run, as one types it."""
        return command_text(name, self.id, *options, runs_dir=self.folder.parent)

    @property
    def status(self) -> str:
        """One of queued, running, finished, failed, stopped, interrupted."""
        with RunReader(self._store()) as reader:
            return reader.status().status

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration as plain values."""
        with RunReader(self._store()) as reader:
            return config(reader.meta(("config",)).get("config"))

    @property
    def summary(self) -> dict[str, Any]:
        """The run in one JSON document, as `dynlora show ID --json` prints it."""
        return queries.run_summary(self._store("vectors", "rollups")).model_dump()

    @property
    def modules(self) -> pd.DataFrame:
        """The adapted modules: name, layer, kind, d_in, d_out, max_rank."""
        return queries.modules_frame(self._store())

    def scalars(self, name: str | None = None, split: str | None = None) -> pd.DataFrame:
        """Return scalars long: name, split, step, value."""
        return queries.scalars_frame(self._store("scalars", "rollups"), name, split)

    def signal(
        self, name: str, start: int | None = None, stop: int | None = None, max_points: int | None = None
    ) -> pd.DataFrame:
        """Return a signal wide: column step, then one per module (or group, ...), for start <= step < stop."""
        return queries.signal_frame(self._store("vectors", "rollups"), name, start, stop, max_points)

    def signals(self) -> list[str]:
        """Return the names of the recorded signals."""
        with RunReader(self._store()) as reader:
            return list(reader.signals())

    def recorded(self) -> list[str]:
        """Return the names of the signals that hold at least one vector."""
        with RunReader(self._store("vectors", "rollups")) as reader:
            return reader.recorded()

    def events(self, *kinds: str) -> pd.DataFrame:
        """Return events, all or of some kinds: seq, time, step, kind, modules, payload."""
        return queries.events_frame(self._store(), kinds or None)

    def groups(self) -> pd.DataFrame:
        """Return the input groups with loss and metric of the last evaluation."""
        return queries.groups_frame(self._store("vectors", "rollups"))

    def examples(self) -> pd.DataFrame:
        """Return the probe set with loss, prediction and probability of the last evaluation."""
        return queries.examples_frame(self._store("vectors", "rollups"))


def open_run(path: str | os.PathLike[str]) -> StoredRun:
    """Open a run folder.

    Args:
        path: the run's folder, `runs/<id>`.

    Raises:
        RunNotFoundError: when the folder holds no run.
        CorruptRunError: when what it holds cannot be read.
    """
    folder = Path(os.path.abspath(path))
    with RunReader(folder) as reader:
        reader.status()
    return StoredRun(folder)


def module_scores(folder: Path) -> dict[str, np.ndarray]:
    """Return scores by name, each by module as recorded, (n_modules,).

    Importance as the allocator saw it at its first and at its last decision and at the end, the ranks it chose, and
    what was recorded of the update. `MODULE_IMPORTANCE` is the one to set against the module's absence: it is the mean
    over the last quarter of the steps.

    Raises:
        DynloraError: when the run cannot be read.
    """
    recorded = set(open_run(folder).recorded())
    moved = queries.rank_moves(folder)["step"].to_numpy(int)
    end = queries.run_summary(folder).step
    signals = {"importance at the end": ("importance", end), "final rank": ("rank", end)}
    if len(moved):
        signals["importance at the first decision"] = ("importance", int(moved.min()))
        signals["importance at the last decision"] = ("importance", int(moved.max()))
    signals |= {"norm of the update": ("delta_norm", end), "gradient at the end": ("grad_norm", end)}
    scores = {}
    if {"importance", "rank"} <= recorded and (whole := _module_importance(folder, end)) is not None:
        scores[MODULE_IMPORTANCE] = whole
    for name, (signal, step) in signals.items():
        if signal in recorded:
            values = queries.signal_at(folder, signal, (step,)).to_numpy(float)[:, 0]
            if np.isfinite(values).any():
                scores[name] = values
    return scores


MODULE_IMPORTANCE = "mean importance of the last quarter"
"""Score of a module: its mean importance over the last quarter of the steps."""


def _module_importance(folder: Path, end: int) -> np.ndarray | None:
    """Return `MODULE_IMPORTANCE`, (n_modules,); None where importance is not recorded so late.

    Earlier versions recorded importance per parameter, which is multiplied by the parameters of the module.
    """
    with RunReader(folder) as reader:
        unit, (_, late) = reader.signals()["importance"].unit, reader.signal("importance", math.ceil(0.75 * end))
        last = reader.last_vector("rank", end)
    modules = queries.modules_frame(folder)
    if not len(late) or last is None or not late.shape[1] == len(last[1]) == len(modules):
        return None
    if not unit.endswith("per parameter"):
        return late.mean(0)
    return late.mean(0) * np.maximum(1, last[1]) * (modules["d_in"] + modules["d_out"]).to_numpy()
