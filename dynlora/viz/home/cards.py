"""The cards of the first page: the picture, three ways in, what runs now, what ended last."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.run_summary import format_progress, format_strategy, progress_share
from dynlora.errors import DynloraError
from dynlora.kinds.registry import registry
from dynlora.store import queries
from dynlora.text import markdown_text, one_line
from dynlora.viz.capacity.view import capacity_view, has_moved
from dynlora.viz.home import model as home_model
from dynlora.viz.kit.panel import RunView
from dynlora.viz.tour import stops as tour_stops
from dynlora.viz.tour.model import is_tour_taken
from dynlora.viz.ui.cards import card, colours, note
from dynlora.viz.ui.replay import replay
from dynlora.viz.ui.run_picker import find_run, link, no_runs, runs_dir

HIDDEN = "tour-hidden"
"""Key of the session in which the hint at the tour was hidden: the runs folder may be read-only."""


def sample_view() -> RunReading | None:
    """Return the capacity of the run of the tour; None where no run can show it."""
    with suppress(DynloraError):
        found = tour_stops.toured()
        return None if found is None else found.view
    return None


def run_view(run_id: str | None) -> RunReading | None:
    """Return the capacity of a run; None without one, or when it has recorded no rank."""
    if run_id is None:
        return None
    with suppress(DynloraError):
        folder = find_run(run_id).folder
        return capacity_view(folder, queries.run_summary(folder))
    return None


def tour_hint() -> None:
    """Offer the tour until it was taken or the offer was hidden."""
    if st.session_state.get(HIDDEN) or is_tour_taken(runs_dir()):
        return
    with st.container(horizontal=True, vertical_alignment="center", key="tour-hint"):
        st.markdown(home_model.TOUR, width="stretch")
        link("pages/tour.py", "Take the tour")
        if st.button("Hide", type="tertiary", key="hide-tour"):
            st.session_state[HIDDEN] = True
            tour_stops.remember()
            st.rerun()


def picture(view: RunReading, *, is_live: bool) -> None:
    """Draw the model as a picture: a finished run plays by itself, one that trains shows its newest step."""
    view = replace(view, step=view.last)
    title = home_model.picture_title(view.summary, is_live=is_live)
    with card(title, "picture"):
        panel = registry()["train"].panel("replay")
        data = panel.data(RunView(view.folder, view, view.store))
        replay(panel.element_values(data, colours()), plays=not is_live, is_linked=False)
        note(home_model.picture_words(view.summary, panel.caption(data)))


def no_picture() -> None:
    """Say why there is no picture."""
    with card("Rank over training", "picture"):
        note("The picture needs a run that recorded rank and importance. Launch one to see it here.")


def newest_moved(runs: pd.DataFrame) -> str | None:
    """Return the id of the last own run that ended and moved rank; None without one."""
    return next((row["id"] for row in home_model.recent(runs) if has_moved(Path(row["folder"]))), None)


def doors(shown: str | None) -> None:
    """Draw the three ways into the dashboard; Compare chooses its runs itself.

    Args:
        shown: id of the run whose capacity is shown; None for none.
    """
    run: Mapping[str, str] = {"run": shown} if shown else {}
    with st.container(gap="small", key="doors"):
        _door("See it move", "The rank of every module at every step.", "capacity", "Open Capacity", run)
        _door(
            "Launch on my data",
            "From a CSV or JSONL file, or a built-in data set.",
            "launch",
            "Choose data",
            {"data": "upload"},
        )
        _door("Compare", "Methods and seeds side by side, with intervals.", "compare", "Compare runs", {})


def _door(title: str, about: str, page: str, label: str, address: Mapping[str, str]) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center", key=f"card-door-{page}"):
        with st.container(gap=None):
            st.markdown(f"##### {markdown_text(title)}")
            note(about)
        link(f"pages/{page}.py", label, **address)


def now_card(runs: pd.DataFrame) -> None:
    """Draw the runs that train or wait, each with how far it is."""
    found = home_model.active(runs)
    with card("Running now", "now"):
        if not found:
            note("No run is training or waiting.")
        for row in found[: home_model.MOST_ACTIVE]:
            with st.container(gap=None):
                _run_line(row, _standing)
                if row["status"] != "queued":
                    st.progress(progress_share(row))
        if len(found) > home_model.MOST_ACTIVE:
            link("pages/runs.py", f"{len(found) - home_model.MOST_ACTIVE} more", sort="status")


def _standing(row: Mapping[str, Any]) -> str:
    return "in the queue" if row["status"] == "queued" else format_progress(row)


def recent_card(runs: pd.DataFrame) -> None:
    """Draw the last runs that ended, each a link."""
    now = time.time()
    found = home_model.recent(runs)
    with card("Recent runs", "recent"):
        if runs.empty:
            no_runs()
            return
        if not found:
            note("No run of your own has ended yet. The list of runs has samples.")
        for row in found:
            _run_line(row, lambda row: home_model.result_words(row, now))
        link("pages/runs.py", "All runs")


def _run_line(row: Mapping[str, Any], words: Callable[[Mapping[str, Any]], str]) -> None:
    """Draw a run on one line: its name, which leads to it, its method, and its state."""
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key=f"run-line-{row['id']}"):
        link("pages/run.py", markdown_text(row["name"], 60), run=row["id"])
        method = one_line(format_strategy(row), 40) if isinstance(row["strategy"], str) else ""
        note(" · ".join(filter(None, (method, words(row)))))
