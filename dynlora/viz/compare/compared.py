"""Runs that are compared: in groups or each alone, each group in its style, with the metric that decides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.analysis import run_summary, seed_groups
from dynlora.analysis.run_queries import RunQueries
from dynlora.analysis.seed_groups import Group
from dynlora.store import queries
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare.line_styles import MOST_COLOURED, LineStyle, line_styles
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
    shown = {run: names[run] for run in seen}
    return Compared({run: folders[run] for run in seen}, seen, shown, metric, groups, styles, whole, store)


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
