"""The guided tour in the browser: which run it shows, its stops, and the way from one to the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import run_summary
from dynlora.analysis.frames import records
from dynlora.analysis.pairing import terms
from dynlora.analysis.run_reading import RunReading, read_run
from dynlora.analysis.run_summary import main_metric
from dynlora.analysis.stats import spearman
from dynlora.errors import DynloraError
from dynlora.kinds.run_kind import registry
from dynlora.safe_files import NotPlainFileError, read_plain, write_text
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import plural
from dynlora.viz.capacity import capacity_view
from dynlora.viz.compare.panels import compared
from dynlora.viz.compare.panels.trainings import HeldOutMetric
from dynlora.viz.kit.panel import RunView
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, colours, in_row, note, picture, titled, under
from dynlora.viz.ui.frame import documentation
from dynlora.viz.ui.replay import replay
from dynlora.viz.ui.run_picker import Chosen, find_run, is_read_only, link, list_all, runs_dir
from dynlora.viz.ui.url_state import chosen_step, segmented
from dynlora.viz.verdict import bold, race_card, races, verdict_sentence

NEEDED = ("rank", "importance", "gate", "group_gate")
"""Signals that a run must have recorded for every stop to have its chart."""

LEAST_EVENTS = 3
"""Reallocations below which there is too little to see."""

LEAST_FOLLOWED = 0.2
"""Correlation of rank won and importance below which the tour's words would not be true of a run."""


@dataclass(frozen=True)
class Stop:
    """One stop of the tour.

    Attributes:
        key: its name in the address.
        short: its title, a word or two.
        question: what it answers, the subtitle.
        words: the text, one paragraph per string.
    """

    key: str
    short: str
    question: str
    words: tuple[str, ...]


STOPS = (
    Stop(
        "rank",
        "Rank",
        "What is rank?",
        (
            "A transformer is a stack of large weight matrices. LoRA freezes them and adds a small update to each: the "
            "product of two thin matrices. The rank is the number of components in this update. Each component costs "
            "parameters and can learn one more direction.",
            "Plain LoRA gives every module the same rank. Press play: one bar per module shows its rank while the "
            "model trains. All ranks together stay within one parameter budget.",
        ),
    ),
    Stop(
        "importance",
        "Importance",
        "What is importance?",
        (
            "Importance estimates how much the loss would change without a component. Training computes the gradient "
            "anyway, and the gradient gives this estimate to first order. The importance of a module is averaged over "
            "steps.",
            "The map shows the importance of every module (rows) at every step (columns). Strong colour: the loss "
            "depends on the update of this module. One step is noisy; a row that stays strong is not.",
        ),
    ),
    Stop(
        "moves",
        "Reallocation",
        "When does rank move?",
        (
            "At some steps the allocator compares modules: would a component reduce the loss more in another module? "
            "If so, it moves there, within a fixed parameter budget. The ticks above the map mark these steps.",
            "The line above the map shows the fraction of the budget in use. It never exceeds 100 %: when one module "
            "gains rank, other modules lose rank.",
        ),
    ),
    Stop(
        "flow",
        "Rank transfers",
        "Which modules gave rank to which?",
        (
            "The chart follows every parameter from its first module (left) to its last module (right). Strong bands "
            "moved between modules. Pale bands did not move.",
            "The totals on both sides match. If they did not, the caption would say so.",
        ),
    ),
    Stop(
        "gates",
        "Gates",
        "What do gates do?",
        (
            "Rank limits what a module can learn. A gate scales the update of a module for each input. 1 is neutral. "
            "Above 1 the update counts more for these inputs, below 1 less.",
            "Rows are input groups. The bars show how much of the variation of a gate the groups explain. The dashed "
            "line is the level that chance alone reaches. Only bars above it are a finding.",
            "Differing is not gaining. Where gates gained most, a factor that is blind to the input gained as much.",
        ),
    ),
    Stop(
        "worth",
        "Results",
        "Do dynamic ranks improve the result?",
        (
            "Moving ranks are not a result by themselves. The result is the quality on held-out examples, compared "
            "with plain LoRA at the same number of parameters, over several seeds.",
            "A line is the mean of runs that differ only in the seed. The band covers the lowest to the highest run. "
            "Under it is the difference with its 95 % interval. An interval that includes 0 decides nothing.",
            "Whether it helps depends on the task: test yours.",
            "Rank, importance and gates are the same for classification, regression and language models. Most methods "
            "learn all three tasks. Methods says which do not, and filters by task.",
        ),
    ),
)
"""The stops, in order."""


def neighbours(key: str) -> tuple[Stop, Stop | None, Stop | None, int]:
    """Return the stop of a key (for an unknown one the first), the one before, the one after, and its number from 1."""
    place = next((i for i, stop in enumerate(STOPS) if stop.key == key), 0)
    before = STOPS[place - 1] if place else None
    after = STOPS[place + 1] if place + 1 < len(STOPS) else None
    return STOPS[place], before, after, place + 1


def merit_of(
    recorded: Sequence[str], events: Sequence[int], ranks: pd.DataFrame, importance: pd.DataFrame
) -> float | None:
    """Return how well a run can be toured, more is better: how far rank followed importance.

    That is Spearman's correlation over the modules between the rank each won and its mean importance until the first
    move; later a component is less important where there are more of them, and cause and effect would mix. Of two
    runs that moved as often this is what tells one that moved by merit from one that moved by chance.

    Args:
        recorded: names of the signals that the run recorded.
        events: steps of the reallocations that moved something.
        ranks: one row per module, one column per recorded step.
        importance: the same.

    Returns:
        None for a run that lacks a signal the tour shows, moved too little, or whose rank followed nothing.
    """
    if not set(NEEDED) <= set(recorded) or len(events) < LEAST_EVENTS or len(ranks) != len(importance):
        return None
    won = ranks.iloc[:, -1] - ranks.iloc[:, 0]
    before = importance.loc[:, importance.columns.to_numpy() <= min(events)]
    correlation = spearman(won, before.mean(axis=1))
    return correlation if correlation >= LEAST_FOLLOWED else None


def alike(rows: Sequence[Mapping[str, Any]], run_id: str, at_most: int = 20) -> list[str]:
    """Return the ids of the runs that a run can be set against: same model, data, steps and budget, all evaluated.

    Args:
        rows: of the list of runs, as dicts.
        run_id: the run, which is always among those returned.
        at_most: of them.
    """
    own = next(row for row in rows if row["id"] == run_id)
    ids = [row["id"] for row in rows if terms(row) == terms(own) and main_metric(row)[1] is not None]
    return list(dict.fromkeys([run_id, *ids]))[:at_most]


def candidates(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the ids of the runs that may be toured, in the order in which they are tried.

    Samples come before own runs, so that the tour stays the same whatever is trained meanwhile. Runs that can be set
    against another method at their own terms come before the others: the last stop compares.

    Args:
        rows: finished runs of the list, as dicts.
    """
    runs: list[list[str]] = []
    for is_own in (False, True):
        runs += comparable_first([row for row in rows if bool(row["is_own"]) is is_own])
    return [ids for ids in runs if ids]


def comparable_first(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the ids of the runs that can be set against another method at their own terms, and those of the others.

    Args:
        rows: finished runs of the list, as dicts.
    """
    methods: dict[tuple[Any, ...], set[Any]] = {}
    for row in rows:
        if main_metric(row)[1] is not None:
            methods.setdefault(terms(row), set()).add(row["strategy"])
    comparable = [row["id"] for row in rows if len(methods.get(terms(row), ())) > 1]
    return [comparable, [row["id"] for row in rows if row["id"] not in set(comparable)]]


MARK_NAME = ".tour-taken"
_TEXT = "The tour of the dashboard was taken or hidden here. Delete this file to be offered it again.\n"


def is_tour_taken(runs_dir: str | os.PathLike[str]) -> bool:
    """Say whether the tour was taken or hidden in this runs folder; whatever cannot be read counts as not."""
    return read_plain(os.path.join(runs_dir, MARK_NAME), 1000) is not None


def mark_tour_taken(runs_dir: str | os.PathLike[str]) -> None:
    """Remember that the tour was taken or hidden.

    Raises:
        OSError: when the folder cannot be written to, or something else is in the place of the file.
    """
    path = Path(runs_dir) / MARK_NAME
    if is_tour_taken(runs_dir):
        return
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise NotPlainFileError(f"{MARK_NAME} of the runs folder is not a plain file")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _TEXT)


MOST_LOOKED_AT = 60
"""Runs that are looked at for the tour, the samples first."""


@dataclass(frozen=True)
class Toured:
    """The run of the tour.

    Attributes:
        run: the run.
        summary: as `queries.run_summary` returns it.
        view: of its capacity, over the whole run.
        alike: ids of the runs it can be set against, its own first.
    """

    run: Chosen
    summary: RunSummary
    view: RunReading
    alike: list[str]


def toured() -> Toured | None:
    """Return the run that the tour is shown on; None when no run has recorded what the tour shows.

    Raises:
        DynloraError: when the run cannot be read.
    """
    runs = list_all()
    finished = runs[runs["status"] == "finished"].sort_values("is_own", kind="stable").head(MOST_LOOKED_AT)
    places = {
        run: (run, folder, int(step))
        for run, folder, step in zip(finished["id"], finished["folder"], finished["step"], strict=True)
    }
    tours = (_best(tuple(places[run] for run in ids)) for ids in candidates(records(finished)))
    best = next((run for run in tours if run is not None), None)
    if best is None:
        return None
    run = find_run(best)
    summary = queries.run_summary(run.folder)
    view = capacity_view(run.folder, summary)
    if view is None:
        return None
    step = chosen_step(0, view.last)
    return Toured(run, summary, replace(view, step=step), alike(records(runs), run.id))


@st.cache_data(max_entries=20, ttl=3600, show_spinner=False)
def _best(runs: tuple[tuple[str, str, int], ...]) -> str | None:
    """Return the id of the run with the most to show, the first of equals; runs as (id, folder, last step)."""
    tours: list[tuple[float, str]] = []
    for run_id, folder, _ in runs:
        with suppress(DynloraError):  # the list says what is wrong with it
            reading = read_run(Path(folder))
            merit = merit_of(reading.recorded, reading.event_steps, reading.whole("rank"), reading.whole("importance"))
            if merit is not None:
                tours.append((merit, run_id))
    return max(tours, key=lambda item: item[0])[1] if tours else None


def nothing_to_tour() -> None:
    """Say that there is no run the tour can be shown on, and what to do."""
    note(
        "The tour needs a finished run that recorded rank, importance and gates, and that moved rank a few times. The "
        "sample runs include one, but they are missing here. Train such a run first; see Methods for what moves rank."
    )
    with st.container(horizontal=True, gap="small"):
        link("pages/launch.py", "Launch a run")
        link("pages/methods.py", "Methods")


def show_stop(tour: Toured) -> None:
    """Draw the stop in the address: its words, its chart, and the way on.

    Raises:
        DynloraError: when the run cannot be read.
    """
    words = {stop.key: stop.short for stop in STOPS}
    key = segmented("stop", "Stop", words)
    stop, before, after, number = neighbours(key)
    with st.container(key="tour-stop"):
        left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader(stop.question, anchor=False)
        for paragraph in stop.words:
            st.markdown(paragraph)
        note(f"Stop {number} of {len(STOPS)}.")
        with in_row("tour-way", "top"):
            if before is not None:
                link("pages/tour.py", f"← {before.short}", stop=before.key)
            if after is not None:
                link("pages/tour.py", f"{after.short} →", stop=after.key)
    with right:
        _CHARTS[stop.key](tour)
    if after is None:
        remember()
        _goodbye(tour)


def remember() -> None:
    """Keep in the runs folder that the tour was taken, where the page may write there."""
    if not is_read_only():
        with suppress(OSError):
            mark_tour_taken(runs_dir())


def _goodbye(tour: Toured) -> None:
    """Draw the links out of the tour."""
    with card("Next steps", "tour-end"):
        note("Open the run of this tour, compare it, or train your own:")
        with st.container(horizontal=True, gap="small"):
            for page in ("run", "capacity", "inputs"):
                link(f"pages/{page}.py", page.capitalize(), run=tour.run.id)
            link("pages/compare.py", "Compare with similar runs", runs=",".join(tour.alike))
            link("pages/launch.py", "Launch a similar run", **{"from": tour.run.id})
            task = tour.summary.task
            link("pages/methods.py", "Methods for this task" if task else "Methods", **({"task": task} if task else {}))


def head(tour: Toured) -> None:
    """Draw the title and which run this is."""
    titled("Tour", f"Six short stops with a real run: {run_summary.about(tour.summary)}.")


def _panel(run: RunReading, name: str, key: str, **chosen: str) -> None:
    """Draw the card of a panel without its controls."""
    panel, view = registry()["train"].panel(name), RunView(run.folder, run, run.store, chosen)
    data = panel.data(view)
    if data is None:
        return
    with card(panel.heading(view), key):
        if panel.element:
            replay(panel.element_values(data, colours()))
            under(panel.caption(data), panel.table(data), key)
        elif (drawn := panel.picture(view, colours())) is not None:
            picture(drawn, key)


def _map(signal: str, tour: Toured) -> None:
    _panel(replace(tour.view, signal=signal, step=tour.view.last), "capacity", f"tour-{signal}")


def _worth(tour: Toured) -> None:
    cases = races(list_all())
    if not cases:
        _own_comparison(tour)
        return
    race_card(cases)
    for case in cases:
        st.markdown(bold(case.verdict))


def _own_comparison(tour: Toured) -> None:
    """Draw the run of the tour beside those of its budget, where no samples are there to race."""
    runs = compared({run_id: find_run(run_id).folder for run_id in tour.alike}, cached_queries.CACHED, in_groups=True)
    drawn = HeldOutMetric().picture(runs.view, colours())
    with card(f"Held-out {runs.metric} of {plural(len(runs.folders), 'run')} with the same budget", "tour-worth"):
        place = st.container()
        if drawn is not None:
            picture(drawn, "tour-worth")
        with place:  # last: it reads the examples of all these runs
            if sentence := verdict_sentence(tour.run, tour.summary):
                st.markdown(sentence)
            documentation("Results over more seeds and tasks", "RESULTS")


_CHARTS: Mapping[str, Callable[[Toured], None]] = {
    "rank": lambda tour: _panel(tour.view, "replay", "tour-rank"),
    "importance": partial(_map, "importance"),
    "moves": partial(_map, "rank"),
    "flow": lambda tour: _panel(tour.view, "flow", "tour-flow"),
    "gates": lambda tour: _panel(replace(tour.view, step=tour.view.last), "gates", "tour-gates", gates="all"),
    "worth": _worth,
}
"""What each stop shows."""
