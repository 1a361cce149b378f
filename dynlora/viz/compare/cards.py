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
from dynlora.viz.compare import one_example, paired_difference, seed_groups
from dynlora.viz.compare import text as compare_text
from dynlora.viz.compare.line_styles import MOST_COLOURED, LineStyle, dots, line_styles
from dynlora.viz.compare.paired_rows import RunPairs
from dynlora.viz.compare.seed_groups import Group
from dynlora.viz.kit import lines, run_summary, strong_language, written
from dynlora.viz.kit.text import metric_words, one_line
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, texts, under
from dynlora.viz.ui.cards import rows as table_rows
from dynlora.viz.ui.hidden_runs import hidden_runs
from dynlora.viz.ui.multiselect import several
from dynlora.viz.ui.run_picker import Chosen
from dynlora.viz.ui.url_state import choose, from_address, segmented

POINTS = 600
"""Most points of a run's series that are read."""

SHOWN = {"groups": "Mean and band", "runs": "Each run"}
SCALES = {"linear": "Linear", "log": "Logarithmic"}


@dataclass(frozen=True)
class Compared:
    """The runs a page compares.

    Attributes:
        folders: of the runs, by id.
        summaries: by id.
        names: display names by id, distinct.
        metric: that decides.
        groups: as they are shown: by configuration, or each run alone; the best result first.
        styles: of the groups, by title.
        all_groups: as `groups`, with the runs that are hidden.
    """

    folders: Mapping[str, Path]
    summaries: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str]
    metric: str
    groups: Sequence[Group]
    styles: Mapping[str, LineStyle]
    all_groups: Sequence[Group]


def read(runs: Sequence[Chosen]) -> Compared:
    """Read the runs, and show them in groups or each alone as the address says.

    Raises:
        DynloraError: when a run cannot be read.
    """
    every = {run.id: queries.run_summary(run.folder) for run in runs}
    names = compare_model.distinct_names(list(every.values()))
    metric = compare_model.shared_metric(list(every.values()))
    whole = compare_model.best_first(every, _in_groups(every, names), metric)
    hidden = hidden_runs()
    summaries = {run: one for run, one in every.items() if run not in hidden} or every
    groups = compare_model.best_first(summaries, _in_groups(summaries, names), metric)
    oldest = {run: group.oldest for group in whole for run in (*group.runs, *group.repeats)}
    titles = {group.title: oldest[group.runs[0]] for group in groups}
    left = {*oldest.values()} - {*titles.values()} if len(whole) <= MOST_COLOURED else ()
    styles = line_styles(list(titles), colours(), _highlighted(summaries, groups), titles, left)
    folders = {run.id: run.folder for run in runs if run.id in summaries}
    shown = {run: names[run] for run in summaries}
    return Compared(folders, summaries, shown, metric, groups, styles, whole)


def _in_groups(summaries: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> Sequence[Group]:
    """Return the runs in groups or each alone, as the address says."""
    shown = from_address("group", list(SHOWN), _usual(list(summaries.values())))
    if shown == "groups":
        return seed_groups.grouped(list(summaries.values()))
    return seed_groups.alone({run: names[run] for run in summaries})


def _usual(summaries: Sequence[Mapping[str, Any]]) -> str:
    return "groups" if len(seed_groups.grouped(summaries)) < len(summaries) else "runs"


def _highlighted(summaries: Mapping[str, Mapping[str, Any]], groups: Sequence[Group]) -> set[str]:
    """Return the titles to draw in colour: those in the address, else of many the best and the best plain LoRA."""
    chosen = set(st.query_params.get_all("highlight"))
    if chosen or len(groups) <= MOST_COLOURED:
        return chosen
    plain = next((one.title for one in groups if run_summary.is_uniform(summaries[one.runs[0]])), groups[0].title)
    return set(list(dict.fromkeys([plain, *(group.title for group in groups)]))[:MOST_COLOURED])


def group_controls(found: Compared) -> None:
    """Draw the choice between groups and single runs, of many that of the highlighted ones, and what is shown."""
    segmented(
        "group", "Runs of one configuration", list(SHOWN), _usual(list(found.summaries.values())), SHOWN.__getitem__
    )
    if len(found.groups) > MOST_COLOURED:
        titles = [group.title for group in found.groups]
        several("highlight", "Highlight", titles, {}, width=320, none="the best and plain LoRA")


def compared_curves(found: Compared) -> None:
    """Draw loss and metric of each group over the chosen axis.

    Raises:
        DynloraError: when a run cannot be read.
    """
    with st.container(horizontal=True, vertical_alignment="center", key="curve-controls"):
        kind = segmented("x", "X axis", list(seed_groups.CLOCKS), "step", _short)
        smoothing = choose("smoothing", "Smoothing", list(lines.SMOOTHING), "usual", str.capitalize, width=130)
        scale = choose("scale", "Y axis", list(SCALES), "linear", SCALES.__getitem__, width=130)
    clocks = {run: _clock(kind, found, run) for run in found.folders}
    missing = [found.names[run] for run, one in clocks.items() if one is None]
    more = compare_text.left_out(missing, seed_groups.CLOCKS[kind])
    smoothed = "Training loss (nats)" if smoothing == "none" else "Smoothed training loss (nats)"
    left, right = st.columns(2)
    for place, label, split, name, title, key in (
        (left, "Training loss", "train", "loss", smoothed, "loss"),
        (right, f"Held-out {metric_words(found.metric)}", "validation", found.metric,
         f"{found.metric} (held-out)", "metric"),
    ):  # fmt: skip
        is_train = split == "train"
        each = {run: _series(found, run, name, split) for run in clocks}
        series = compare_model.together(each, smoothing=smoothing if is_train else "none")
        bands = seed_groups.bands(seed_groups.placed(series, clocks), found.groups, between=is_train)
        with place, card(label, key):
            figure = compare_figures.curves(
                bands, seed_groups.CLOCKS[kind], title, colours(), marks=not is_train, styles=found.styles,
                is_log=scale == "log",
            )  # fmt: skip
            low = is_train or found.metric in compare_model.LOW_IS_GOOD
            words = compare_text.curves(bands, low_is_good=low)
            sampled = "" if is_train else compare_model.sample_words(list(found.summaries.values()))
            chart(figure, " ".join(filter(None, (words, sampled, more))), bands, f"overlay-{key}")


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
        figure = compare_figures.frontier(points, found.metric, colours(), found.styles)
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


def compared_example(found: Compared) -> None:
    """Draw one probe example in every run: the pinned one, else the one that the runs differ most on.

    Raises:
        DynloraError: when a run cannot be read.
    """
    frames = one_example.shared_examples(
        {run: cached_queries.ask_events(queries.examples_frame, folder) for run, folder in found.folders.items()}
    )
    with card("One example in every run", "example"):
        if len(frames) < 2:
            note("These runs share no probe examples: they need the same data, and an evaluation each.")
            return
        first = next(iter(frames.values()))
        names = {i: _named(row) for i, row in enumerate(first.to_dict("records"))}
        position = choose("example", "Probe example", list(names), one_example.most_disputed(frames), names.__getitem__)
        table = one_example.in_every_run(frames, position, found.groups, found.summaries)
        pinned = first[["text", "text_pair", "label"]].iloc[[position]].dropna(axis="columns", how="all")
        if any(run_summary.writes(found.summaries[run]) for run in frames):
            pinned, table = written.as_written(pinned), one_example.as_written(table)
        texts(pinned, "pinned")
        titles = {group.label: group.title for group in found.groups}
        table_rows(table, dots([titles[label] for label in table["configuration"]], found.styles))
        under(one_example.sentence(table), table, "example")


def _named(example: Mapping[Any, Any]) -> str:
    return one_line(f"{strong_language.shown(example['text'])} ({example['label']})", 90)


def dots_of_runs(found: Compared) -> list[str | None]:
    """Return the colour of each run's dot, in the order of the summaries: that of its group's lines."""
    titles = {run: group.title for group in found.groups for run in (*group.runs, *group.repeats)}
    return dots([titles.get(run, "") for run in found.summaries], found.styles)


def _label_of(groups: Mapping[str, Group], run: str) -> str | None:
    return next((label for label, group in groups.items() if run in group.runs), None)


def _differences(found: Compared, pairs: Sequence[tuple[int, str, str]], names: tuple[str, str], why: str) -> None:
    sides = RunPairs(found.folders, found.summaries, cached_queries.ask_events).differences(pairs)
    if not sides[0].differences:
        note("These runs have no losses of shared examples yet. The last evaluation records them.")
        return
    shown = [side for side in sides if side.differences]
    for place, side in zip(st.columns(max(2, len(shown))), shown, strict=False):
        rows = paired_difference.forest(side.differences)
        words = compare_text.paired(rows, *names, side.what, low_is_good=side.low_is_good, digits=side.digits)
        with place:
            figure = compare_figures.forest(rows, side.title, colours())
            chart(figure, f"{words} {why}".strip(), rows, f"paired-{side.key}")
