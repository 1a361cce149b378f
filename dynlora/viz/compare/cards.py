"""The Compare page's parts: curves by group, the frontier, paired differences, final ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.store import queries
from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import paired_difference, seed_groups
from dynlora.viz.compare import text as compare_text
from dynlora.viz.compare.paired_rows import RunPairs
from dynlora.viz.compare.seed_groups import Group
from dynlora.viz.kit import run_summary
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note
from dynlora.viz.ui.run_picker import Chosen
from dynlora.viz.ui.url_state import choose, segmented

POINTS = 600
"""Most points of a run's series that are read."""

RANKS = {"mean": "Final rank", "spread": "Spread over seeds"}


@dataclass(frozen=True)
class Compared:
    """The runs a page compares.

    Attributes:
        folders: of the runs, by id.
        summaries: by id.
        names: display names by id, distinct.
        metric: that decides.
        groups: as they are shown: by configuration, or each run alone.
    """

    folders: Mapping[str, Path]
    summaries: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str]
    metric: str
    groups: Sequence[Group]


def compared(runs: Sequence[Chosen]) -> Compared:
    """Read the runs and draw the choice between groups and single runs.

    Raises:
        DynloraError: when a run cannot be read.
    """
    summaries = {run.id: queries.run_summary(run.folder) for run in runs}
    names = compare_model.distinct_names(list(summaries.values()))
    groups = seed_groups.grouped(list(summaries.values()))
    words = {"groups": "Mean and band", "runs": "Each run"}
    usual = "groups" if len(groups) < len(runs) else "runs"
    shown = segmented("group", "Runs of one configuration", list(words), usual, words.__getitem__)
    metric = compare_model.shared_metric(list(summaries.values()))
    chosen = groups if shown == "groups" else seed_groups.alone(names)
    return Compared({run.id: run.folder for run in runs}, summaries, names, metric, chosen)


def compared_curves(found: Compared) -> None:
    """Draw loss and metric of each group over the chosen axis.

    Raises:
        DynloraError: when a run cannot be read.
    """
    kind = segmented("x", "X axis", list(seed_groups.CLOCKS), "step", _short)
    clocks = {run: _clock(kind, found, run) for run in found.folders}
    missing = [found.names[run] for run, one in clocks.items() if one is None]
    more = compare_text.left_out(missing, seed_groups.CLOCKS[kind])
    left, right = st.columns(2)
    for place, label, split, name, title, key in (
        (left, "Training loss", "train", "loss", "Smoothed training loss (nats)", "loss"),
        (right, f"Held-out {found.metric}", "validation", found.metric,
         f"{found.metric} (held-out)", "metric"),
    ):  # fmt: skip
        is_train = split == "train"
        series = compare_model.together({run: _series(found, run, name, split) for run in clocks}, smooth=is_train)
        bands = seed_groups.bands(seed_groups.placed(series, clocks), found.groups, between=is_train)
        with place, card(label, key):
            figure = compare_figures.curves(bands, seed_groups.CLOCKS[kind], title, colours(), marks=not is_train)
            low = is_train or found.metric in compare_model.LOW_IS_GOOD
            words = compare_text.curves(bands, low_is_good=low)
            chart(figure, f"{words} {more}".strip(), bands, f"overlay-{key}")


def _short(kind: str) -> str:
    return "By " + seed_groups.CLOCKS[kind].partition(" (")[0]


def _series(found: Compared, run: str, name: str, split: str) -> pd.DataFrame:
    frame = cached_queries.ask(queries.scalars_frame, found.folders[run], name, split, POINTS)
    return run_summary.series(frame, name, split)


def _clock(kind: str, found: Compared, run: str) -> pd.DataFrame | None:
    folder, empty = found.folders[run], pd.DataFrame({"step": [], "value": [], "parameters": []})
    each = line = empty
    if name := {"seconds": "step_ms", "tokens": "tokens"}.get(kind):
        each = run_summary.series(cached_queries.ask(queries.scalars_frame, folder, name, "train"), name, "train")
    elif kind == "parameter-steps":
        line = cached_queries.budget(folder, found.summaries[run])
    return seed_groups.clock(kind, found.summaries[run], each, line)


def compared_frontier(found: Compared) -> None:
    """Draw quality against parameters."""
    points = compare_model.by_group(found.summaries, found.groups, found.metric)
    with card("Quality against parameters", "frontier"):
        figure = compare_figures.frontier(points, found.metric, colours())
        chart(figure, compare_text.frontier(points, found.metric), points, "frontier")


def compared_pairs(found: Compared, usual: tuple[str, str] | None = None) -> None:
    """Draw the paired difference of two groups, over shared seeds and examples.

    Args:
        found: the runs.
        usual: a run of the baseline, and one of the configuration that is set against it unless others are chosen.

    Raises:
        DynloraError: when a run cannot be read.
    """
    groups = {group.label: group for group in seed_groups.grouped(list(found.summaries.values()))}
    labels = list(groups)
    with card("Paired difference", "paired"):
        if len(labels) < 2:
            note("All these runs have the same configuration. A paired difference needs two configurations.")
            return
        against, other = (_label_of(groups, run) for run in usual or ("", ""))
        left, right = st.columns(2)
        with left:
            second = choose("second", "Group", labels, other or labels[1])
        with right:
            first = choose("first", "Minus group", labels, against or labels[0])
        pairs, why = paired_difference.pairs(found.summaries, groups[first], groups[second])
        if first == second:
            note("Select two different groups.")
        elif not pairs:
            note(f"There are no pairs: {why}")
        else:
            _differences(found, pairs, (first, second), why)


def _label_of(groups: Mapping[str, Group], run: str) -> str | None:
    return next((label for label, group in groups.items() if run in group.runs), None)


def _differences(found: Compared, pairs: Sequence[tuple[int, str, str]], names: tuple[str, str], why: str) -> None:
    sides = RunPairs(found.folders, found.summaries, cached_queries.ask_events).differences(pairs)
    if not sides[0].differences:
        note("These runs have no losses of shared examples yet. The last evaluation records them.")
        return
    for place, side in zip(st.columns(2), sides, strict=True):
        if side.differences:
            rows = paired_difference.forest(side.differences)
            words = compare_text.paired(rows, *names, side.what, low_is_good=side.low_is_good, digits=side.digits)
            with place:
                figure = compare_figures.forest(rows, side.title, colours())
                chart(figure, f"{words} {why}".strip(), rows, f"paired-{side.key}")


def compared_ranks(found: Compared) -> None:
    """Draw the last ranks by module and group, or how far they differ between seeds.

    Raises:
        DynloraError: when a run cannot be read.
    """
    summaries = list(found.summaries.values())
    modules = {run: cached_queries.modules(folder) for run, folder in found.folders.items()}
    table, rows = compare_model.rank_table(summaries, modules, found.names)
    with card("Rank by module", "ranks"):
        if rows.empty:
            note("No ranks have been recorded yet.")
            return
        shown = segmented("ranks", "Ranks shown", list(RANKS), "mean", RANKS.__getitem__)
        by_config = seed_groups.grouped(summaries)
        is_spread = shown == "spread"
        drawn = compare_model.group_ranks(
            table, found.names, by_config if is_spread else found.groups, spread=is_spread
        )
        if drawn.empty:
            note("No configuration has two runs, so there is no spread over seeds.")
            return
        title = "Standard deviation of rank (components)" if is_spread else "Rank (components)"
        alike = compare_text.reproducible(compare_model.reproducibility(table, found.names, by_config))
        read = drawn.rename(index=dict(zip(rows["name"], rows["short"], strict=True)))
        words = f"{compare_text.allocation(read, is_spread)} {alike}"
        chart(
            compare_figures.final_ranks(drawn, rows, colours(), title), words, compare_model.named_rows(drawn), "ranks"
        )
