"""Curves, frontier and final ranks of several runs as figures with captions, for pages and notebooks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.analysis import run_summary, seed_groups
from dynlora.analysis.frames import RunQueries
from dynlora.analysis.retention import RETENTION, retentions
from dynlora.analysis.seed_groups import Group
from dynlora.store import queries
from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import text as compare_text
from dynlora.viz.kit.panel import Picture
from dynlora.viz.kit.run_colours import MOST_COLOURED, LineStyle, line_styles
from dynlora.viz.kit.theme import Palette

POINTS = 600
"""Most points of a run's series that are read."""

Summaries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Compared:
    """The runs that are compared.

    Attributes:
        folders: of the runs, by id.
        summaries: by id.
        names: display names by id, distinct.
        metric: that decides.
        groups: as they are shown: by configuration, or each run alone; the best result first.
        styles: of the groups, by title.
        all_groups: as `groups`, with the runs that are hidden.
        store: answers the questions to the store.
    """

    folders: Mapping[str, Path]
    summaries: Summaries
    names: Mapping[str, str]
    metric: str
    groups: Sequence[Group]
    styles: Mapping[str, LineStyle]
    all_groups: Sequence[Group]
    store: RunQueries

    def series(self, run: str, name: str, split: str) -> pd.DataFrame:
        """Return one number of a run over its steps: columns step and value.

        Raises:
            DynloraError: when the run cannot be read.
        """
        frame = self.store.ask(queries.scalars_frame, self.folders[run], name, split, POINTS)
        return run_summary.series(frame, name, split)

    def clock(self, kind: str, run: str) -> pd.DataFrame | None:
        """Return where each step of a run is on an x axis, a key of `seed_groups.CLOCKS`; None when not recorded.

        Raises:
            DynloraError: when the run cannot be read.
        """
        folder, empty = self.folders[run], pd.DataFrame({"step": [], "value": [], "parameters": []})
        each = line = empty
        if name := {"seconds": "step_ms", "tokens": "tokens"}.get(kind):
            each = run_summary.series(self.store.ask(queries.scalars_frame, folder, name, "train"), name, "train")
        elif kind == "parameter-steps":
            line = self.store.budget(folder, self.summaries[run])
        return seed_groups.clock(kind, self.summaries[run], each, line)


def compared(
    folders: Mapping[str, Path],
    summaries: Summaries,
    store: RunQueries,
    colours: Palette,
    *,
    in_groups: bool | None = None,
    hidden: Collection[str] = (),
    highlighted: Collection[str] = (),
) -> Compared:
    """Set runs side by side.

    Args:
        folders: of the runs, by id.
        summaries: as `queries.run_summary` returns them, by id.
        store: answers the questions to the store.
        colours: of the mode.
        in_groups: by configuration, or each run alone; None: by configuration where two runs share one.
        hidden: ids of runs to leave out; where that would be all, none is.
        highlighted: titles of groups to draw in colour; without any, of many groups the best and the best plain LoRA.
    """
    metric = compare_model.shared_metric(list(summaries.values()))
    names = compare_model.distinct_names(list(summaries.values()))
    whole = compare_model.best_first(summaries, _groups(summaries, names, in_groups), metric)
    seen = {run: one for run, one in summaries.items() if run not in hidden} or summaries
    groups = compare_model.best_first(seen, _groups(seen, names, in_groups), metric)
    home = {run: group for group in whole for run in (*group.runs, *group.repeats)}
    titles = {group.title: home[group.runs[0]] for group in groups}
    hidden_groups = [group for group in whole if group not in titles.values()]
    styles = line_styles(list(titles), colours, _in_colour(seen, groups, highlighted), titles, hidden_groups)
    seen_names = {run: names[run] for run in seen}
    return Compared({run: folders[run] for run in seen}, seen, seen_names, metric, groups, styles, whole, store)


def are_grouped(summaries: Summaries) -> bool:
    """Say whether runs are usually shown by configuration: where two of them share one."""
    return len(seed_groups.grouped(list(summaries.values()))) < len(summaries)


def _groups(summaries: Summaries, names: Mapping[str, str], in_groups: bool | None) -> Sequence[Group]:
    """Return the runs by configuration, or each alone."""
    if are_grouped(summaries) if in_groups is None else in_groups:
        return seed_groups.grouped(list(summaries.values()))
    return seed_groups.alone({run: names[run] for run in summaries}, summaries)


def _in_colour(summaries: Summaries, groups: Sequence[Group], highlighted: Collection[str]) -> set[str]:
    """Return the titles to draw in colour."""
    if highlighted or len(groups) <= MOST_COLOURED:
        return set(highlighted)
    plain = next((one.title for one in groups if run_summary.is_uniform(summaries[one.runs[0]])), groups[0].title)
    return set(list(dict.fromkeys([plain, *(group.title for group in groups)]))[:MOST_COLOURED])


@dataclass(frozen=True)
class FinalRanks:
    """The last ranks and the settings of runs that are compared.

    Attributes:
        compared: the runs.
        table: last ranks, a row per module name and a column per run.
        rows: the modules in the order of the rows.
    """

    compared: Compared
    table: pd.DataFrame
    rows: pd.DataFrame

    @cached_property
    def by_config(self) -> list[seed_groups.Group]:
        """The runs by configuration."""
        return seed_groups.grouped(list(self.compared.summaries.values()))

    @cached_property
    def alike(self) -> pd.DataFrame:
        """How alike the ranks of the seeds of a configuration are, as `model.reproducibility` returns it."""
        return compare_model.reproducibility(self.table, self.compared.names, self.by_config)

    @cached_property
    def differing(self) -> pd.DataFrame:
        """The settings that are not the same in all runs, as `model.config_difference` returns them."""
        return compare_model.config_difference(list(self.compared.summaries.values()), self.compared.names)

    def drawn(self, *, spread: bool = False) -> pd.DataFrame:
        """Return the ranks, or their spread over seeds, as the map shows them."""
        groups = self.by_config if spread else self.compared.groups
        return compare_model.group_ranks(self.table, self.compared.names, groups, spread=spread)

    def read(self, drawn: pd.DataFrame) -> pd.DataFrame:
        """Return what `drawn` returned with the short names of the modules."""
        return drawn.rename(index=dict(zip(self.rows["name"], self.rows["short"], strict=True)))


def read_ranks(runs: Compared) -> FinalRanks:
    """Read the last ranks of the runs.

    Raises:
        DynloraError: when a run cannot be read.
    """
    modules = {run: runs.store.modules(folder) for run, folder in runs.folders.items()}
    return FinalRanks(runs, *compare_model.rank_table(list(runs.summaries.values()), modules, runs.names))


def curves(
    runs: Compared,
    name: str,
    split: str,
    colours: Palette,
    *,
    kind: str = "step",
    smoothing: str = "usual",
    is_log: bool = False,
) -> Picture:
    """Return the training loss, or a held-out metric, of each group with the band of its runs.

    Args:
        runs: the runs.
        name: of the number.
        split: train or validation.
        colours: of the mode.
        kind: of the x axis, a key of `seed_groups.CLOCKS`.
        smoothing: of the training loss, a key of `frames.SMOOTHING`.
        is_log: whether the y axis is logarithmic.

    Raises:
        DynloraError: when a run cannot be read.
    """
    is_train = split == "train"
    clocks = {run: runs.clock(kind, run) for run in runs.folders}
    each = {run: runs.series(run, name, split) for run in clocks}
    series = compare_model.together(each, smoothing=smoothing if is_train else "none")
    bands = seed_groups.bands(seed_groups.placed(series, clocks), runs.groups, between=is_train)
    axis = _axis(name, smoothing, is_train=is_train)
    figure = compare_figures.curves(
        bands, seed_groups.CLOCKS[kind], axis, colours, marks=not is_train, styles=runs.styles, is_log=is_log
    )
    words = compare_text.curves(bands)
    sampled = "" if is_train else compare_model.sample_words(list(runs.summaries.values()))
    missing = [runs.names[run] for run, one in clocks.items() if one is None]
    more = compare_text.left_out(missing, seed_groups.CLOCKS[kind])
    return Picture(figure, " ".join(filter(None, (words, sampled, more))), bands)


def _axis(name: str, smoothing: str, *, is_train: bool) -> str:
    """Return the title of the y axis of `curves`."""
    if not is_train:
        return f"{name} (held-out)"
    return "Training loss (nats)" if smoothing == "none" else "Smoothed training loss (nats)"


def frontier(runs: Compared, colours: Palette) -> Picture:
    """Return the last metric of each group against the adapter parameters in use."""
    points = compare_model.by_group(runs.summaries, runs.groups, runs.metric)
    figure = compare_figures.frontier(points, runs.metric, colours, runs.styles)
    return Picture(figure, compare_text.frontier(points, runs.metric), points)


def retention(runs: Compared, colours: Palette) -> Picture | None:
    """Return the last metric of each group against what it forgot; None where no run measured it.

    Raises:
        DynloraError: when a run cannot be read.
    """
    events = {
        run: runs.store.ask_events(queries.events_frame, folder, (RETENTION,)) for run, folder in runs.folders.items()
    }
    last = {run: read[-1] for run, frame in events.items() if (read := retentions(frame))}
    points = compare_model.by_group(runs.summaries, runs.groups, runs.metric)
    points = compare_model.by_retention(points, runs.groups, last, runs.metric)
    if points.empty:
        return None
    figure = compare_figures.retention(points, runs.metric, colours, runs.styles)
    return Picture(figure, compare_text.retention(points, runs.metric), points)


def final_ranks(capacity: FinalRanks, colours: Palette, *, is_spread: bool = False) -> Picture:
    """Return the last rank of each module in each group.

    Args:
        capacity: last ranks of the runs; `drawn` must hold something.
        colours: of the mode.
        is_spread: the standard deviation over the seeds of a configuration in place of the mean.
    """
    drawn = capacity.drawn(spread=is_spread)
    title = "Standard deviation of rank (components)" if is_spread else "Rank (components)"
    words = compare_text.allocation(capacity.read(drawn), is_spread)
    figure = compare_figures.final_ranks(drawn, capacity.rows, colours, title)
    return Picture(figure, words, compare_model.named_rows(drawn))
