"""`dynlora.compare`: several runs side by side, as the page Compare shows them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.errors import ConfigError
from dynlora.notebook.comparison_plots import ComparisonPlots
from dynlora.notebook.templates import filled, table
from dynlora.store import queries
from dynlora.store.run import Run, open_run
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare.compared import Compared, compared
from dynlora.viz.compare.line_styles import dots
from dynlora.viz.compare.paired_rows import RunPairs
from dynlora.viz.kit import theme
from dynlora.viz.kit.run_queries import RunQueries
from dynlora.viz.kit.text import plural
from dynlora.viz.kit.theme import Palette
from dynlora.viz.verdict import text as verdict_text
from dynlora.viz.verdict.model import Verdict, verdict

Folder = str | os.PathLike[str]

NO_VERDICT = "No run of these has finished with a result, so there is no verdict yet."


def compare(runs: Iterable[Run | Folder], runs_dir: Folder = "runs") -> Comparison:
    """Set runs side by side; runs that differ only in the seed form one group.

    Args:
        runs: two or more runs, each a `Run`, the folder of one, or an id in `runs_dir`.
        runs_dir: folder that ids are looked up in.

    Raises:
        ConfigError: when these are no list of at least two runs.
        RunNotFoundError: when one of them is not there.
        CorruptRunError: when one of them cannot be read.
    """
    if isinstance(runs, str | os.PathLike | Run):
        raise ConfigError(f"runs={str(runs)!r}: must be a list of two or more runs, such as [run, 'runs/ID', 'ID']")
    folders = list(dict.fromkeys(_folder(run, Path(runs_dir)) for run in runs))
    if len(folders) < 2:
        raise ConfigError(f"runs: got {plural(len(folders), 'run')}; a comparison takes two or more different runs")
    ids = [folder.name for folder in folders]
    if twice := next((one for one in ids if ids.count(one) > 1), None):
        raise ConfigError(f"runs: two folders have the id {twice!r}; compare a run with others, not with its copy")
    return Comparison({folder.name: folder for folder in folders})


def _folder(run: Run | Folder, runs_dir: Path) -> Path:
    """Return the folder of a run, after a look that there is one."""
    if isinstance(run, Run):
        return run.folder
    path = Path(run)
    is_id = isinstance(run, str) and path.name == run and not path.is_dir()
    return open_run(runs_dir / path if is_id else path).folder


class Comparison:
    """Runs side by side; each call reads what is there now, so a sweep can be watched while it trains.

    Attributes:
        folders: of the runs, by id.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """Point at run folders; use `dynlora.compare`, which checks them."""
        self.folders = dict(folders)
        self._store = RunQueries()

    def __repr__(self) -> str:
        """Return the ids."""
        return f"Comparison({', '.join(map(repr, self.folders))})"

    @property
    def plot(self) -> ComparisonPlots:
        """The figures of the page Compare."""
        return ComparisonPlots(self._compared, self._verdict)

    def table(self, *, each_run: bool = False) -> pd.DataFrame:
        """Return the final results as the page shows them.

        Args:
            each_run: one row for each run, with its status, steps and times, in place of one for each configuration.

        Raises:
            DynloraError: when a run cannot be read.
        """
        found = self._compared(theme.LIGHT)
        if each_run:
            return compare_model.final_table(list(found.summaries.values()), found.names, found.metric)
        points = compare_model.by_group(found.summaries, found.groups, found.metric)
        return compare_model.group_table(points, found.metric)

    @property
    def verdict(self) -> str:
        """Which configuration to use: the difference from the baseline with its 95 % interval and number of seeds."""
        found = self._verdict()
        return NO_VERDICT if found is None else verdict_text.headline(found)

    def _compared(self, colours: Palette) -> Compared:
        """Return the runs as the page shows them where nothing was chosen."""
        return compared(self.folders, self._summaries(), self._store, colours)

    def _summaries(self) -> dict[str, dict[str, Any]]:
        return {run: queries.run_summary(folder) for run, folder in self.folders.items()}

    def _verdict(self) -> Verdict | None:
        summaries = self._summaries()
        return verdict(summaries, RunPairs(self.folders, summaries, self._store.ask_events).differences)

    def _repr_html_(self) -> str:
        """Return the verdict and the final results as a card; notebooks call this."""
        found, judged = self._compared(theme.LIGHT), self._verdict()
        points = compare_model.by_group(found.summaries, found.groups, found.metric)
        colours = dots([str(title) for title in points["group"]], found.styles)
        notes = [] if judged is None else [verdict_text.outlook(judged), verdict_text.left_out(judged)]
        return filled(
            "comparison_card.html",
            title=f"Comparison of {plural(len(self.folders), 'run')}",
            verdict=NO_VERDICT if judged is None else verdict_text.headline(judged),
            notes=[*filter(None, notes), *compare_model.warnings(list(found.summaries.values()))],
            results=table(compare_model.group_table(points, found.metric), colours),
        )
