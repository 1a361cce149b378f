"""`dynlora.compare`: several runs side by side, as the page Compare shows them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.addresses import is_url
from dynlora.analysis import seed_groups, verdict_text
from dynlora.analysis.frames import RunQueries
from dynlora.analysis.verdict import MARGIN
from dynlora.errors import ConfigError, NotRecordedError
from dynlora.notebook import figure
from dynlora.notebook.figure import PageFigure, one_of
from dynlora.notebook.run import Run, open_run
from dynlora.notebook.run_card import filled, table
from dynlora.safe_files import path_of
from dynlora.text import listed, plural
from dynlora.viz.compare import figures as verdict_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare.panels import Compared, compared, panels_of
from dynlora.viz.compare.panels.trainings import FinalRanks, Frontier, HeldOutMetric, TrainingLoss
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, Picture
from dynlora.viz.kit.run_colours import dots


def _figures() -> dict[str, Panel[Any]]:
    """Return the panels of the page that are figures, by their ids."""
    return {panel.id: panel for panel in panels_of() if panel.has_figure}


class ComparisonPlots:
    """The figures of runs side by side; each call draws what the runs have recorded until now.

    Every figure is a plotly figure with a `caption` and a `table`, drawn by the code of its page.
    `comparison.plot(theme="dark")` returns the same figures for a dark notebook.

    Examples:
        >>> runs = ["20261205-150014-7699b340", "20261205-145817-12f40aea"]
        >>> plot = dynlora.compare(runs, "sample_runs").plot(theme="dark")
        >>> plot.training("loss").table.columns[0]
        'group'
        >>> figures = [plot.results(), plot.differences(), plot.capacity()]
        >>> all(figure.caption for figure in figures)
        True
    """

    def __init__(self, compared: Callable[[], Compared], theme: str = "light") -> None:
        """Keep what reads the runs; use `Comparison.plot`."""
        self._compared, self._theme, self._colours = compared, theme, figure.palette(theme)

    def __repr__(self) -> str:
        """Return the theme and the figures there are."""
        names = ", ".join(name for name in dir(self) if not name.startswith("_"))
        return f"ComparisonPlots(theme={self._theme!r}): {names}"

    def __dir__(self) -> list[str]:
        """Return the figures, those of the panels by their ids."""
        return [*super().__dir__(), *_figures()]

    def __getattr__(self, name: str) -> Callable[..., PageFigure]:
        """Return the function that draws a panel of the page.

        Raises:
            AttributeError: when there is no such panel.
        """
        if name not in (panels := _figures()):
            raise AttributeError(f"ComparisonPlots has no figure {name!r}; it has {', '.join(panels)}")
        return lambda: self._panel(panels[name])

    def __call__(self, theme: str = "light") -> ComparisonPlots:
        """Return the figures in another theme.

        Args:
            theme: `light` or `dark`.

        Raises:
            ConfigError: when there is no such theme.
        """
        return ComparisonPlots(self._compared, theme)

    def training(self, metric: str | None = None, split: str | None = None, *, x: str = "step") -> PageFigure:
        """Draw a metric of each configuration over training, with the band of its seeds.

        Args:
            metric: its name; the held-out metric that decides by default.
            split: train or validation; by default train for the loss and validation for all else.
            x: what runs along the x axis: step, seconds, tokens or parameter-steps.

        Raises:
            NotRecordedError: when no run has recorded it.
            ConfigError: when the split or the axis is none of those.
        """
        one_of("x", x, seed_groups.CLOCKS)
        compared = self._compared()
        name = metric or compared.metric
        side = split or ("train" if metric == "loss" else "validation")
        one_of("split", side, ("train", "validation"))
        known = sorted({key for one in compared.rows for key in one.metrics})
        remedy = f"held-out metrics of these runs are {listed(known, 12)}" if known else "wait for an evaluation"
        missing = f"no run has recorded {name!r} of the split {side!r} over {x}; {remedy}"
        panel = TrainingLoss() if side == "train" else HeldOutMetric()
        return self._panel(panel, missing, compared, metric=name, x=x)

    def results(self) -> PageFigure:
        """Draw the last metric of each configuration, with the range of its seeds, against the parameters in use.

        Raises:
            NotRecordedError: when no run has a result yet.
        """
        return self._panel(Frontier())

    def differences(self) -> PageFigure:
        """Draw the difference of each configuration from the baseline, with its 95 % interval: the verdict's figure.

        Raises:
            NotRecordedError: when no two configurations share a seed and held-out examples.
        """
        judged = self._compared().judged
        drawn = [] if judged is None else verdict_figures.drawable(judged)
        if judged is None or not drawn:
            remedy = "compare finished runs of two configurations with the same seeds on the same data"
            raise NotRecordedError(f"there is no difference to draw; {remedy}")
        words = verdict_text.drawn(judged, len(drawn))
        picture = Picture(verdict_figures.differences(judged, self._colours), words, verdict_text.table(judged))
        return figure.page_figure(picture, self._colours)

    def capacity(self, *, spread: bool = False) -> PageFigure:
        """Draw the final rank of each module in each configuration.

        Args:
            spread: the standard deviation over the seeds of a configuration in place of the mean.

        Raises:
            NotRecordedError: when no run has recorded ranks, or no configuration has two seeds for a spread.
        """
        return self._panel(FinalRanks(), ranks="spread" if spread else "mean")

    def _panel(
        self, panel: Panel[Any], missing: str = "", compared: Compared | None = None, **chosen: str
    ) -> PageFigure:
        """Draw a panel of the page.

        Raises:
            NotRecordedError: when there is nothing to draw; `missing` says what, else the panel does.
        """
        view = replace((compared or self._compared()).view, chosen=chosen)
        picture = panel.picture(view, self._colours)
        if picture is None:
            raise NotRecordedError(missing or panel.reason_missing(view))
        return figure.page_figure(picture, self._colours)


Folder = str | os.PathLike[str]

NO_VERDICT = "No run of these has finished with a result, so there is no verdict yet."


def compare(runs: Iterable[Run | Folder], runs_dir: Folder = "runs", *, margin: float = MARGIN) -> Comparison:
    """Set runs side by side; runs that differ only in the seed form one group.

    Args:
        runs: two or more runs, each a `Run`, the folder or address of one, or an id in `runs_dir`.
        runs_dir: folder that ids are looked up in, or the address of one.
        margin: points of the metric within which two configurations are equal; a point is 0.02 nats of loss.

    Raises:
        ConfigError: when these are no list of at least two runs, or the margin is no positive number.
        RunNotFoundError: when one of them is not there.
        CorruptRunError: when one of them cannot be read.

    Examples:
        >>> dynlora.compare(["20261205-150635-e9038c42", "20261205-150221-607a9164"], "sample_runs")
        Comparison('20261205-150635-e9038c42', '20261205-150221-607a9164')
    """
    if isinstance(runs, str | os.PathLike | Run) or not isinstance(runs, Iterable):
        raise ConfigError(f"runs={str(runs)!r}: must be a list of two or more runs, such as [run, 'runs/ID', 'ID']")
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 < margin < math.inf:
        raise ConfigError(f"margin={margin!r}: must be a number of points above 0, such as {MARGIN:g}")
    opened = [_opened(run, runs_dir) for run in runs]
    runs_by_address = {run.address: run for run in opened}
    if len(runs_by_address) < 2:
        raise ConfigError(
            f"runs: got {plural(len(runs_by_address), 'run')}; a comparison takes two or more different runs"
        )
    ids = [run.id for run in runs_by_address.values()]
    if twice := next((one for one in ids if ids.count(one) > 1), None):
        raise ConfigError(f"runs: two of them have the id {twice!r}; compare a run with others, not with its copy")
    return Comparison(list(runs_by_address.values()), margin)


def _opened(run: Run | Folder, runs_dir: Folder) -> Run:
    """Return a run, after a look that there is one."""
    if isinstance(run, Run):
        return run
    is_id = isinstance(run, str) and not is_url(run) and Path(run).name == run and not Path(run).is_dir()
    if not is_id:
        return open_run(run)
    if is_url(runs_dir):
        return open_run(f"{str(runs_dir).rstrip('/')}/{run}")
    return open_run(path_of("runs_dir", runs_dir) / str(run))


class Comparison:
    """Runs side by side; each call reads what is there now, so a sweep can be watched while it trains.

    Examples:
        >>> runs = ["20261205-145115-dab7e702", "20261205-144905-03e6ddf3"]
        >>> comparison = dynlora.compare(runs, "sample_runs")
        >>> list(comparison.folders) == runs
        True
        >>> len(comparison.table()), len(comparison.table(each_run=True))
        (2, 2)
        >>> comparison.verdict[-1]
        '.'
        >>> sorted({"parameters", "ranks", "retention", "training"} - set(dir(comparison.plot)))
        []
    """

    def __init__(self, runs: Iterable[Run], margin: float = MARGIN) -> None:
        """Point at runs; use `dynlora.compare`, which checks them."""
        self._runs, self._margin = {run.id: run for run in runs}, margin
        self._store = RunQueries()

    def __repr__(self) -> str:
        """Return the ids."""
        return f"Comparison({', '.join(map(repr, self._runs))})"

    @property
    def folders(self) -> dict[str, Path]:
        """Folders of the runs, by id; of a run elsewhere, one of this process."""
        return {run_id: run.folder for run_id, run in self._runs.items()}

    @property
    def plot(self) -> ComparisonPlots:
        """The figures of the page Compare."""
        return ComparisonPlots(self._compared)

    def table(self, *, each_run: bool = False) -> pd.DataFrame:
        """Return the final results as the page shows them.

        Args:
            each_run: one row for each run, with its status, steps and times, in place of one for each configuration.

        Raises:
            DynloraError: when a run cannot be read.
        """
        compared = self._compared()
        if each_run:
            return compare_model.final_table(compared.rows, compared.names, compared.metric)
        return compare_model.group_table(compared.points, compared.metric)

    @property
    def verdict(self) -> str:
        """Which configuration to use: the difference from the baseline with its 95 % interval and number of seeds."""
        judged = self._compared().judged
        return NO_VERDICT if judged is None else verdict_text.headline(judged)

    def _compared(self) -> Compared:
        """Return the runs as the page shows them where nothing was chosen."""
        return replace(compared(self.folders, self._store), margin=self._margin)

    def _repr_html_(self) -> str:
        """Return the verdict and the final results as a card; notebooks call this."""
        compared = self._compared()
        points, judged = compared.points, compared.judged
        notes = [] if judged is None else [verdict_text.outlook(judged), verdict_text.left_out(judged)]
        return filled(
            "comparison_card.html",
            title=f"Comparison of {plural(len(self._runs), 'run')}",
            verdict=NO_VERDICT if judged is None else verdict_text.headline(judged),
            notes=[*filter(None, notes), *compared.notes],
            results=table(
                compare_model.group_table(points, compared.metric),
                dots(points["group"], compared.styles(theme.LIGHT)),
            ),
        )
