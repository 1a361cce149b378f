"""The guided tour in the browser: which run it shows, its stops, and the way from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import run_summary, seed_groups
from dynlora.analysis.frames import records
from dynlora.analysis.run_reading import RunReading, read_run
from dynlora.errors import DynloraError
from dynlora.kinds.registry import registry
from dynlora.store import queries
from dynlora.text import plural
from dynlora.viz.capacity import capacity_view
from dynlora.viz.compare import figures as compare_figures
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import text as compare_text
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.run_colours import line_styles
from dynlora.viz.race import race_card, races
from dynlora.viz.tour import model as tour_model
from dynlora.viz.tour.model import mark_tour_taken
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, picture, titled, under
from dynlora.viz.ui.frame import documentation
from dynlora.viz.ui.replay import replay
from dynlora.viz.ui.run_picker import Chosen, find_run, is_read_only, link, list_all, runs_dir
from dynlora.viz.ui.url_state import chosen_step, segmented
from dynlora.viz.verdict.cards import bold, verdict_sentence

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
    summary: Mapping[str, Any]
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
    tours = (_best(tuple(places[run] for run in ids)) for ids in tour_model.candidates(records(finished)))
    best = next((run for run in tours if run is not None), None)
    if best is None:
        return None
    run = find_run(best)
    summary = queries.run_summary(run.folder)
    view = capacity_view(run.folder, summary)
    if view is None:
        return None
    step = chosen_step(0, view.last)
    return Toured(run, summary, replace(view, step=step), tour_model.alike(records(runs), run.id))


@st.cache_data(max_entries=20, ttl=3600, show_spinner=False)
def _best(runs: tuple[tuple[str, str, int], ...]) -> str | None:
    """Return the id of the run with the most to show, the first of equals; runs as (id, folder, last step)."""
    tours: list[tuple[float, str]] = []
    for run_id, folder, _ in runs:
        with suppress(DynloraError):  # the list says what is wrong with it
            reading = read_run(Path(folder))
            merit = tour_model.merit(
                reading.recorded, reading.event_steps, reading.whole("rank"), reading.whole("importance")
            )
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
    words = {stop.key: stop.short for stop in tour_model.STOPS}
    key = segmented("stop", "Stop", list(words), tour_model.STOPS[0].key, words.__getitem__)
    stop, before, after, number = tour_model.neighbours(key)
    with st.container(key="tour-stop"):
        left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader(stop.question, anchor=False)
        for paragraph in stop.words:
            st.markdown(paragraph)
        note(f"Stop {number} of {len(tour_model.STOPS)}.")
        with st.container(horizontal=True, gap="small", key="tour-way"):
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
            task = tour.summary.get("task")
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


def _rank(tour: Toured) -> None:
    _panel(tour.view, "replay", "tour-rank")


def _map(tour: Toured, signal: str) -> None:
    _panel(replace(tour.view, signal=signal, step=tour.view.last), "capacity", f"tour-{signal}")


def _importance(tour: Toured) -> None:
    _map(tour, "importance")


def _moves(tour: Toured) -> None:
    _map(tour, "rank")


def _flow(tour: Toured) -> None:
    _panel(tour.view, "flow", "tour-flow")


def _gates(tour: Toured) -> None:
    _panel(replace(tour.view, step=tour.view.last), "gates", "tour-gates", gates="all")


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
    folders = {run_id: find_run(run_id).folder for run_id in tour.alike}
    summaries = {run_id: queries.run_summary(folder) for run_id, folder in folders.items()}
    groups, metric = (
        seed_groups.grouped(list(summaries.values())),
        compare_model.shared_metric(list(summaries.values())),
    )
    each = {run_id: _series(folder, metric) for run_id, folder in folders.items()}
    series = compare_model.together(each)
    bands = seed_groups.bands(series.assign(x=series["step"]), groups, between=False)
    table = compare_model.by_group(summaries, groups, metric)
    with card(f"Held-out {metric} of {plural(len(folders), 'run')} with the same budget", "tour-worth"):
        place = st.container()
        titles = {group.title: group for group in groups}
        styles = line_styles(list(titles), colours(), (), titles)
        figure = compare_figures.curves(bands, "step", f"{metric} (held-out)", colours(), marks=True, styles=styles)
        words = compare_text.groups(table, metric, is_judged=len(groups) > 1)
        chart(figure, words, compare_model.group_table(table, metric), "tour-worth")
        with place:  # last: it reads the examples of all these runs
            if sentence := verdict_sentence(tour.run, tour.summary):
                st.markdown(sentence)
            documentation("Results over more seeds and tasks", "RESULTS")


def _series(folder: Any, metric: str) -> pd.DataFrame:
    return run_summary.series(
        cached_queries.ask(queries.scalars_frame, folder, metric, "validation", 600), metric, "validation"
    )


_CHARTS = {
    "rank": _rank,
    "importance": _importance,
    "moves": _moves,
    "flow": _flow,
    "gates": _gates,
    "worth": _worth,
}
"""What each stop shows."""
