"""Runs that are compared, and their panels: each class in a file of this folder is one and appears by existing.

Its `part` says where: under that heading in a report, in that section of the page; in a notebook it is `plot.<id>`.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.analysis import run_summary, seed_groups
from dynlora.analysis.frames import RunQueries
from dynlora.analysis.pairing import RunPairs
from dynlora.analysis.seed_groups import Group
from dynlora.analysis.verdict import MARGIN, Verdict, verdict
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import text as compare_text
from dynlora.viz.kit.panel import Panel, RunView, panels_in
from dynlora.viz.kit.run_colours import MOST_COLOURED, LineStyle, line_styles
from dynlora.viz.kit.theme import Palette

POINTS = 600
"""Most points of a run's series that are read."""

Summaries = Mapping[str, RunSummary]


@dataclass(frozen=True)
class Compared:
    """The runs that are compared.

    Attributes:
        folders: of the runs, by id.
        summaries: by id.
        names: display names by id, distinct.
        metric: that decides.
        groups: as they are shown: by configuration, or each run alone; the best result first.
        all_groups: as `groups`, with the runs that are hidden.
        highlighted: titles of groups to draw in colour.
        store: answers the questions to the store.
        margin: points within which two configurations are equal.
    """

    folders: Mapping[str, Path]
    summaries: Summaries
    names: Mapping[str, str]
    metric: str
    groups: Sequence[Group]
    all_groups: Sequence[Group]
    highlighted: Collection[str]
    store: RunQueries
    margin: float = MARGIN

    @property
    def rows(self) -> list[RunSummary]:
        """The summaries, in the order of the runs."""
        return list(self.summaries.values())

    @property
    def view(self) -> RunView:
        """What the panels are drawn of; a comparison has no folder but those of its runs."""
        return RunView(Path(), self, self.store)

    @cached_property
    def by_config(self) -> list[Group]:
        """The runs by configuration."""
        return seed_groups.grouped(list(map(dict, self.rows)))

    @cached_property
    def pairs(self) -> RunPairs:
        """Losses of the runs, paired by seed and example."""
        return RunPairs(self.folders, self.summaries, self.store.ask_events)

    @cached_property
    def judged(self) -> Verdict | None:
        """Which configuration to use on the first task; None where nothing can be said."""
        return next(iter(self.judgements), None)

    @property
    def differ(self) -> str:
        """In which settings the runs differ, the baseline first."""
        judged = self.judged
        groups = self.by_config if judged is None else judged.in_order(self.by_config)[::-1]
        first = [] if judged is None else [group for group in groups if group.runs[0] in judged.baseline.runs]
        order = [*first, *(group for group in groups if group not in first)]
        return compare_text.they_differ([self.summaries[group.runs[0]].config for group in order])

    @cached_property
    def judgements(self) -> list[Verdict]:
        """A verdict for each task among the runs, that on most configurations first."""
        results: list[Verdict] = []
        left = dict(self.summaries)
        while (result := verdict(left, self.pairs.differences, margin=self.margin)) is not None:
            results.append(result)
            seen = {run for group in result.groups for run in (*group.runs, *group.repeats)}
            left = {run: one for run, one in left.items() if run not in seen}
        return results

    @property
    def notes(self) -> list[str]:
        """In which settings the runs differ, and what else makes them unlike."""
        return [*filter(None, [self.differ]), *compare_model.warnings(self.rows)]

    @cached_property
    def points(self) -> pd.DataFrame:
        """The last metric of each group, as `model.by_group` returns it."""
        return compare_model.by_group(self.summaries, self.groups, self.metric)

    @cached_property
    def ranks(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Last ranks, a row per module name and a column per run; and the modules in the order of the rows."""
        modules = {run: self.store.modules(folder) for run, folder in self.folders.items()}
        return compare_model.rank_table(self.rows, modules, self.names)

    @cached_property
    def alike(self) -> pd.DataFrame:
        """How alike the ranks of the seeds of a configuration are, as `model.reproducibility` returns it."""
        return compare_model.reproducibility(self.ranks[0], self.names, self.by_config)

    @cached_property
    def differing(self) -> pd.DataFrame:
        """The settings that are not the same in all runs, as `model.config_difference` returns them."""
        return compare_model.config_difference(self.rows, self.names)

    def styles(self, colours: Palette) -> dict[str, LineStyle]:
        """Return the style of each group by its title; without highlighted ones, of many the best and plain LoRA."""
        home = {run: group for group in self.all_groups for run in (*group.runs, *group.repeats)}
        titles = {group.title: home[group.runs[0]] for group in self.groups}
        hidden = [group for group in self.all_groups if group not in titles.values()]
        in_colour = set(self.highlighted)
        if not in_colour and len(titles) > MOST_COLOURED:
            plain = (one.title for one in self.groups if run_summary.is_uniform(self.summaries[one.runs[0]]))
            own = (one.title for one in self.groups if one.method == seed_groups.DEFAULTS["strategy.name"])
            judged = [one.title for one in self.groups if self.judged and set(one.runs) & set(self.judged.sides or ())]
            first = [next(plain, self.groups[0].title), *judged, *list(own)[:1], *titles]
            in_colour = set(list(dict.fromkeys(first))[:MOST_COLOURED])
        return line_styles(list(titles), colours, in_colour, titles, hidden)

    def final_ranks(self, *, spread: bool = False) -> pd.DataFrame:
        """Return the ranks by group, or their spread over seeds, as the map shows them."""
        groups = self.by_config if spread else self.groups
        return compare_model.group_ranks(self.ranks[0], self.names, groups, spread=spread)

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
    store: RunQueries,
    summaries: Summaries | None = None,
    *,
    in_groups: bool | None = None,
    hidden: Collection[str] = (),
    highlighted: Collection[str] = (),
) -> Compared:
    """Set runs side by side.

    Args:
        folders: of the runs, by id.
        store: answers the questions to the store.
        summaries: as `queries.run_summary` returns them, by id, where they were asked already.
        in_groups: by configuration, or each run alone; None: by configuration where two runs share one.
        hidden: ids of runs to leave out; where that would be all, none is.
        highlighted: titles of groups to draw in colour; without any, of many groups the best and the best plain LoRA.

    Raises:
        DynloraError: when a run cannot be read.
    """
    summaries = summaries or {run: queries.run_summary(folder) for run, folder in folders.items()}
    rows = list(map(dict, summaries.values()))
    metric, names = compare_model.shared_metric(rows), compare_model.distinct_names(rows)
    seen = {run: one for run, one in summaries.items() if run not in hidden} or summaries
    whole, groups = (
        compare_model.best_first(runs, _groups(runs, names, in_groups), metric) for runs in (summaries, seen)
    )
    seen_names = {run: names[run] for run in seen}
    return Compared({run: folders[run] for run in seen}, seen, seen_names, metric, groups, whole, highlighted, store)


def are_grouped(summaries: Summaries) -> bool:
    """Say whether runs are usually shown by configuration: where two of them share one."""
    return len(seed_groups.grouped(list(map(dict, summaries.values())))) < len(summaries)


def _groups(summaries: Summaries, names: Mapping[str, str], in_groups: bool | None) -> Sequence[Group]:
    """Return the runs by configuration, or each alone."""
    if are_grouped(summaries) if in_groups is None else in_groups:
        return seed_groups.grouped(list(map(dict, summaries.values())))
    return seed_groups.alone({run: names[run] for run in summaries}, summaries)


@dataclass(frozen=True)
class Drawn:
    """What a panel of a comparison shows: its numbers, the runs, and what the reader chose."""

    runs: Compared
    numbers: pd.DataFrame
    chosen: Mapping[str, str]


class ComparisonPanel(Panel[Drawn]):
    """A figure of runs side by side; `view.result` is a `Compared`."""

    kind = "comparison"
    part = "Final results"
    is_wide = True

    @abstractmethod
    def numbers(self, runs: Compared, chosen: Mapping[str, str]) -> pd.DataFrame:
        """Return what is drawn; no rows where nothing was recorded."""

    def data(self, view: RunView) -> Drawn | None:
        """Return the numbers with the runs; None where there are none."""
        drawn = Drawn(view.result, self.numbers(view.result, view.chosen), view.chosen)
        return None if drawn.numbers.empty else drawn


def panels_of(*parts: str) -> list[Panel[Any]]:
    """Return the panels of a comparison under these headings; all without any."""
    panels = panels_in(sys.modules[__name__])
    return [panel for panel in panels if not parts or panel.part in parts]
