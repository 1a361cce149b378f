"""`Run`: one run for a notebook or a script, as pandas frames."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynlora.store.reader import RunReader

if TYPE_CHECKING:
    import pandas as pd

    from dynlora.store.summary import RunSummary


class Run:
    """A run folder; each call reads what is there now, so a run can be watched while it trains."""

    def __init__(self, folder: Path) -> None:
        """Point at a run folder; use `open_run`, which checks it."""
        self.folder = folder

    def __repr__(self) -> str:
        """Return the id and how the run stands."""
        return f"Run({self.folder.name!r}, status={self.status!r})"

    def _repr_html_(self) -> str:
        """Return the run as a card, as it is now; notebooks call this."""
        from importlib import import_module

        return import_module("dynlora.notebook.run_card").run_card(self.folder)

    @property
    def plot(self) -> Any:
        """The figures of the dashboard's pages, for a notebook: see `dynlora.notebook.plots.Plots`."""
        from importlib import import_module

        return import_module("dynlora.notebook.plots").Plots(self)

    @property
    def id(self) -> str:
        """Id of the run."""
        return self.folder.name

    @property
    def status(self) -> str:
        """One of queued, running, finished, failed, stopped, interrupted."""
        with RunReader(self.folder) as reader:
            return reader.status().status

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration as plain values."""
        from dynlora.store.summary import run_summary

        return run_summary(self.folder)["config"]

    @property
    def summary(self) -> RunSummary:
        """The run in one JSON document, as `dynlora show ID --json` prints it."""
        from dynlora.store.summary import run_summary

        return run_summary(self.folder)

    @property
    def modules(self) -> pd.DataFrame:
        """The adapted modules: name, layer, kind, d_in, d_out, max_rank."""
        from dynlora.store import queries

        return queries.modules_frame(self.folder)

    def scalars(self, name: str | None = None, split: str | None = None) -> pd.DataFrame:
        """Return scalars long: name, split, step, value."""
        from dynlora.store import queries

        return queries.scalars_frame(self.folder, name, split)

    def signal(
        self, name: str, start: int | None = None, stop: int | None = None, max_points: int | None = None
    ) -> pd.DataFrame:
        """Return a signal wide: column step, then one per module (or group, ...), for start <= step < stop."""
        from dynlora.store import queries

        return queries.signal_frame(self.folder, name, start, stop, max_points)

    def signals(self) -> list[str]:
        """Return the names of the recorded signals."""
        with RunReader(self.folder) as reader:
            return list(reader.signals())

    def recorded(self) -> list[str]:
        """Return the names of the signals that hold at least one vector."""
        with RunReader(self.folder) as reader:
            return reader.recorded()

    def events(self, *kinds: str) -> pd.DataFrame:
        """Return events, all or of some kinds: seq, time, step, kind, modules, payload."""
        from dynlora.store import queries

        return queries.events_frame(self.folder, kinds or None)

    def groups(self) -> pd.DataFrame:
        """Return the input groups with loss and metric of the last evaluation."""
        from dynlora.store import queries

        return queries.groups_frame(self.folder)

    def examples(self) -> pd.DataFrame:
        """Return the probe set with loss, prediction and probability of the last evaluation."""
        from dynlora.store import queries

        return queries.examples_frame(self.folder)

    def load(self) -> Any:
        """Return the adapted model; needs torch.

        Of a recycle it is the meta-LoRA, whose `fewshot` takes examples, and of a distillation the student.
        """
        from importlib import import_module

        return import_module("dynlora.kinds.registry").kind_of_run(self.folder).load(self.folder)


def open_run(path: str | os.PathLike[str]) -> Run:
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
    return Run(folder)
