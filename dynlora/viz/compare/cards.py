"""The Compare page's parts: curves by group, the frontier, paired differences, final ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dynlora.analysis import pairing, results, run_summary, seed_groups
from dynlora.analysis.frames import SMOOTHING
from dynlora.analysis.planted_ranks import compared_sentence
from dynlora.analysis.run_summary import ACTIVE, seconds_taken
from dynlora.analysis.seed_groups import Group
from dynlora.analysis.verdict import MARGIN, NATS_PER_POINT
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import number, one_line, plural, rough_duration, score
from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import text as compare_text
from dynlora.viz.compare.panels import Compared, are_grouped, compared, panels_of
from dynlora.viz.compare.panels.trainings import FinalRanks, HeldOutMetric
from dynlora.viz.kit.run_colours import MOST_COLOURED, dots
from dynlora.viz.runs.table import plain_rows
from dynlora.viz.ui import cached_queries, live, run_actions, run_picker
from dynlora.viz.ui.cards import card, chart, colours, in_row, note, texts, under
from dynlora.viz.ui.cards import rows as table_rows
from dynlora.viz.ui.panel_cards import conclusion, panel_card, panel_cards
from dynlora.viz.ui.run_picker import Chosen, link
from dynlora.viz.ui.url_state import choose, from_address, hidden_runs, segmented, several


@dataclass(frozen=True)
class Progress:
    """How far some runs have come.

    Attributes:
        n: runs in total.
        finished: runs that reached their last step.
        active: runs that are queued, running or stopping.
        queued: runs of these that wait.
        share: of all steps that are done, from 0 to 1.
        seconds_left: until the last run ends, one run at a time; None where nothing says how long a step takes here.
    """

    n: int
    finished: int
    active: int
    queued: int
    share: float
    seconds_left: float | None


def counted(rows: Sequence[Mapping[str, Any]], remaining: Mapping[str, float] = MappingProxyType({})) -> Progress:
    """Return how far runs have come.

    Args:
        rows: of the list, as plain values.
        remaining: seconds that runs which train say they still need, by id.
    """
    states = [row["status"] for row in rows]
    active = [row for row in rows if row["status"] in ACTIVE]
    done, planned = sum(map(_done, rows)), sum(map(_planned, rows))
    return Progress(
        n=len(rows),
        finished=states.count("finished"),
        active=len(active),
        queued=states.count("queued"),
        share=done / planned if planned else 0.0,
        seconds_left=_seconds_left(rows, active, remaining),
    )


def _seconds_left(
    rows: Sequence[Mapping[str, Any]], active: Sequence[Mapping[str, Any]], remaining: Mapping[str, float]
) -> float | None:
    """Return what the active runs still need: what they say, of the others their steps at the pace of this machine."""
    paces = [pace for row in rows if (pace := _seconds_per_step(row)) is not None]
    paces = paces or [remaining[row["id"]] / left for row in active if row["id"] in remaining and (left := _left(row))]
    others = sum(_left(row) for row in active if row["id"] not in remaining)
    if others and not paces:
        return None
    stated = sum(remaining.get(row["id"], 0.0) for row in active)
    return stated + (median(paces) * others if others else 0.0)


def _left(row: Mapping[str, Any]) -> int:
    return _planned(row) - _done(row)


def _planned(row: Mapping[str, Any]) -> int:
    return row["max_steps"] if isinstance(row.get("max_steps"), int) else 0


def _done(row: Mapping[str, Any]) -> int:
    step = row["step"] if isinstance(row.get("step"), int) else 0
    return min(step, _planned(row)) if row["status"] in ACTIVE else _planned(row)


def _seconds_per_step(row: Mapping[str, Any]) -> float | None:
    """Return the pace of a finished run; None of a sample, which another machine trained."""
    seconds, step = seconds_taken(row), row.get("step")
    if seconds is None or row["status"] != "finished" or not row.get("is_own", True):
        return None
    return seconds / step if isinstance(step, int) and step > 0 else None


def progress_text(progress: Progress) -> str:
    """Say how far the runs have come."""
    training, over = progress.active - progress.queued, progress.n - progress.finished - progress.active
    parts = [f"{progress.finished} of {plural(progress.n, 'run')} finished"]
    parts += [f"{training} training"] if training else []
    parts += [f"{progress.queued} in the queue"] if progress.queued else []
    parts += [f"{over} ended early"] if over else []
    left = "" if progress.seconds_left is None else f" About {rough_duration(progress.seconds_left)} remaining."
    return f"{', '.join(parts)}.{left}"


def follow_progress(rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw how many of the runs have finished, and draw the page again when one more has; nothing when all are over.

    Args:
        rows: of the list, for the runs that are compared.
    """
    drawn = counted(rows)
    if not drawn.active:
        return
    ids = [row["id"] for row in rows]

    @live.following(2, active=True)
    def show() -> None:
        run_actions.wake()
        runs = run_picker.list_all()
        now = plain_rows(runs[runs["id"].isin(ids)])
        progress = counted(now, _remaining(now))
        with card("Progress", "progress"):
            st.progress(progress.share, text=progress_text(progress))
            note("The verdict and the charts below follow each run that finishes.")
        if (progress.finished, progress.active) != (drawn.finished, drawn.active):
            st.rerun()

    show()


def _remaining(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds that the runs which train say they still need, by id."""
    training = [Path(row["folder"]) for row in rows if row["status"] in ("running", "stopping")]
    activities = {folder.name: queries.run_summary(folder).activity or {} for folder in training}
    known = {run: activity.get("remaining_s") for run, activity in activities.items()}
    return {run: seconds for run, seconds in known.items() if seconds is not None}


NAMED = ("text", "text_pair", "label")


def shared_examples(frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the runs whose probe set is that of the first run that has one; only there is a position one example.

    Args:
        frames: of the runs by id, as `queries.examples_frame` returns them.
    """
    known = {run: frame for run, frame in frames.items() if len(frame)}
    if not known:
        return {}
    first = next(iter(known.values()))[list(NAMED)].fillna("")
    return {run: frame for run, frame in known.items() if frame[list(NAMED)].fillna("").equals(first)}


def most_disputed(frames: Mapping[str, pd.DataFrame]) -> int:
    """Return the position of the example whose loss differs most between the runs, 0 where none does."""
    losses = np.array([frame["loss"].to_numpy(float) for frame in frames.values()])
    spread = np.nan_to_num(
        np.nanmax(losses, axis=0, initial=-np.inf) - np.nanmin(losses, axis=0, initial=np.inf), neginf=0
    )
    return int(np.argmax(spread)) if spread.size else 0


def in_every_run(
    frames: Mapping[str, pd.DataFrame],
    position: int,
    groups: Sequence[Group],
    summaries: Mapping[str, RunSummary],
) -> pd.DataFrame:
    """Return one row per run, in the order of the groups: configuration, seed, prediction, right, probability, loss.

    Args:
        frames: as `shared_examples` returns them.
        position: of the example in the probe set.
        groups: of the runs.
        summaries: by id.
    """
    rows = []
    for group in groups:
        for run in group.runs:
            if run in frames:
                example = frames[run].iloc[[position]]
                labels = [str(label) for label in summaries[run].labels]
                rows.append((group.label, summaries[run].seed, *_answer(example, labels), example["loss"].iloc[0]))
    return pd.DataFrame(rows, columns=["configuration", "seed", "prediction", "right", "probability", "loss"])


def _answer(example: pd.DataFrame, labels: Sequence[str]) -> tuple[str | None, str | None, float | None]:
    """Return the prediction in words, whether it is right, and its probability; None for what is not known."""
    guess, probability = example["prediction"].iloc[0], example["probability"].iloc[0]
    if pd.isna(guess):
        return None, None, None
    words = results.class_name(guess, labels)
    right = "yes" if results.is_right(example, labels)[0] else "no"
    return words, right if labels else None, None if pd.isna(probability) else round(float(probability), 3)


def as_written(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `in_every_run` as people read them where texts are to be written."""
    names = {"prediction": "right tokens", "probability": "probability of a token (mean)"}
    return table.drop(columns="right").rename(columns=names)


def sentence(table: pd.DataFrame) -> str:
    """Say how many runs are right, and how far their losses are apart."""
    known = table.dropna(subset=["loss"])
    if known.empty:
        return "These runs have not recorded this example."
    answers = ""
    if "right" in table and table["right"].notna().any():
        answers = f"{(table['right'] == 'yes').sum()} of {plural(len(table), 'run')} predict its label. "
    ordered = known.sort_values("loss", kind="stable")
    low, high = ordered.iloc[0], ordered.iloc[-1]
    if score(low["loss"]) == score(high["loss"]):
        return f"{answers}Its loss is {number(low['loss'])} in every run."
    return (
        f"{answers}Its loss runs from {number(low['loss'])} ({one_line(low['configuration'], 60)}) to "
        f"{number(high['loss'])} ({one_line(high['configuration'], 60)})."
    )


SHOWN = {"groups": "Mean and band", "runs": "Each run"}
SCALES = {"linear": "Linear", "log": "Logarithmic"}


def read(runs: Sequence[Chosen], summaries: Mapping[str, RunSummary]) -> Compared:
    """Read the runs, whose summaries are known by id, and show them in groups or each alone as the address says.

    Raises:
        DynloraError: when a run cannot be read.
    """
    grouping = from_address("group", list(SHOWN), None)
    runs_compared = compared(
        {run.id: run.folder for run in runs},
        cached_queries.CACHED,
        summaries,
        in_groups=None if grouping is None else grouping == "groups",
        hidden=hidden_runs(),
        highlighted=set(st.query_params.get_all("highlight")),
    )
    return replace(runs_compared, margin=from_address("margin", MARGINS, MARGIN))


MARGINS = (0.25, 0.5, MARGIN, 2.0, 5.0)
ABOUT_MARGIN = "Two configurations are called equal when the interval of their difference is within this margin."


def margin_words(margin: float) -> str:
    """Return a margin in points of a metric, and in nats of loss."""
    return f"{margin:g} {'point' if margin == 1 else 'points'}, {NATS_PER_POINT * margin:g} nats"


def group_controls(runs: Compared) -> None:
    """Draw the choice between groups and single runs, of many that of the highlighted ones, and what is shown."""
    usual = "groups" if are_grouped(runs.summaries) else "runs"
    segmented("group", "Runs of one configuration", SHOWN, usual)
    if len(runs.groups) > MOST_COLOURED:
        titles = [group.title for group in runs.groups]
        several("highlight", "Highlight", titles, {}, width=320, none="the best and plain LoRA")
    choose("margin", "Equal within", MARGINS, MARGIN, margin_words, width=210, help=ABOUT_MARGIN)


def compared_curves(runs: Compared) -> None:
    """Draw loss and metric of each group over the chosen axis.

    Raises:
        DynloraError: when a run cannot be read.
    """
    with in_row("curve-controls"):
        chosen = {
            "x": segmented("x", "X axis", list(seed_groups.CLOCKS), words=_short),
            "smoothing": choose("smoothing", "Smoothing", list(SMOOTHING), "usual", str.capitalize, width=130),
            "scale": choose("scale", "Y axis", SCALES, width=130),
        }
    panel_cards(panels_of("Training"), replace(runs.view, chosen=chosen))


def screens(runs: Compared, times: float) -> list[Callable[[], None]]:
    """Return what draws the screens of a presentation after the verdict: the results over the steps, and the ranks.

    Args:
        runs: the runs.
        times: how much larger a chart is than on its page.
    """
    panels = (HeldOutMetric(), FinalRanks())
    return [partial(panel_card, one, runs.view, times=times) for one in panels if one.data(runs.view) is not None]


def _short(kind: str) -> str:
    return "By " + seed_groups.CLOCKS[kind].partition(" (")[0]


def compared_pairs(runs: Compared, usual: tuple[str, str] | None) -> None:
    """Draw the paired difference of two groups, over shared seeds and examples.

    Args:
        runs: the runs.
        usual: a run of the baseline, and one of the configuration that is set against it unless others are chosen.

    Raises:
        DynloraError: when a run cannot be read.
    """
    groups = {group.label: group for group in runs.by_config}
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
            first = choose("first", "Minus group", labels, against)
        pairs, why = pairing.pairs(runs.summaries, groups[first], groups[second])
        if first == second:
            note("Select two different groups.")
        elif not pairs:
            note(f"There are no pairs: {why}")
        else:
            _differences(runs, pairs, (first, second), why)


def compared_example(runs: Compared) -> None:
    """Draw one probe example in every run: the pinned one, else the one that the runs differ most on.

    Raises:
        DynloraError: when a run cannot be read.
    """
    frames = shared_examples(
        {run: cached_queries.ask_events(queries.examples_frame, folder) for run, folder in runs.folders.items()}
    )
    with card("One example in every run", "example"):
        if len(frames) < 2:
            note("These runs share no probe examples: they need the same data, and an evaluation each.")
            return
        first = next(iter(frames.values()))
        names = {i: _named(row) for i, row in enumerate(first.to_dict("records"))}
        position = choose("example", "Probe example", names, most_disputed(frames))
        table = in_every_run(frames, position, runs.groups, runs.summaries)
        pinned = first[["text", "text_pair", "label"]].iloc[[position]].dropna(axis="columns", how="all")
        if any(run_summary.writes(runs.summaries[run]) for run in frames):
            pinned, table = results.as_written(pinned), as_written(table)
        texts(pinned, "pinned")
        titles = {group.label: group.title for group in runs.groups}
        table_rows(table, dots([titles[label] for label in table["configuration"]], runs.styles(colours())))
        under(sentence(table), table, "example")


def _named(example: Mapping[Any, Any]) -> str:
    return one_line(f"{example['text']} ({example['label']})", 90)


def dots_of_runs(runs: Compared) -> list[str | None]:
    """Return the colour of each run's dot, in the order of the summaries: that of its group's lines."""
    titles = {run: group.title for group in runs.groups for run in (*group.runs, *group.repeats)}
    return dots([titles.get(run, "") for run in runs.summaries], runs.styles(colours()))


def _label_of(groups: Mapping[str, Group], run: str) -> str | None:
    return next((label for label, group in groups.items() if run in group.runs), None)


def _differences(runs: Compared, pairs: Sequence[tuple[int, str, str]], names: tuple[str, str], why: str) -> None:
    sides = runs.pairs.differences(pairs)
    if not sides[0].differences:
        note("These runs have no losses of shared examples yet. The last evaluation records them.")
        return
    differing = [side for side in sides if side.differences]
    for place, side in zip(st.columns(max(2, len(differing))), differing, strict=False):
        rows = pairing.forest(side.differences)
        words = compare_text.paired(rows, *names, side.what, low_is_good=side.low_is_good, digits=side.digits)
        with place:
            figure = compare_figures.forest(rows, side.title, colours())
            chart(figure, f"{words} {why}".strip(), rows, f"paired-{side.key}")


def capacity_conclusion(runs: Compared) -> None:
    """Draw what the section shows, in a sentence, and the link to what that means for the results."""
    members = {group.label: [runs.summaries[run] for run in group.runs] for group in runs.groups}
    ranks = compare_text.capacity(runs.final_ranks(), len(runs.names))
    then = (runs.differ, compare_text.reproducible(runs.alike))
    first, *others = filter(None, (compared_sentence(members), ranks, *then))
    with conclusion(first, " ".join(others)):
        selection = {name: st.query_params[name] for name in ("runs", "q") if name in st.query_params}
        link("pages/compare.py", "Does it change the result? Results", **selection)
