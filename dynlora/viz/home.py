"""The first page: what dynlora is, the model as a picture that plays, where to begin, what runs now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis.frames import records
from dynlora.analysis.planted_ranks import PLANTED_DATA, compared_sentence, needed_modules, outlined, placement
from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.run_summary import (
    ACTIVE,
    STATUS_WORDS,
    about,
    format_progress,
    format_strategy,
    is_uniform,
    main_metric,
    progress_share,
)
from dynlora.errors import DynloraError
from dynlora.kinds.run_kind import registry
from dynlora.kinds.train.panels.replay import speech
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import ago, first_sentence, markdown_text, one_line, score
from dynlora.viz import tour
from dynlora.viz.capacity import capacity_view
from dynlora.viz.kit.panel import RunView
from dynlora.viz.tour import is_tour_taken
from dynlora.viz.ui.cards import card, colours, in_row, note
from dynlora.viz.ui.replay import replay
from dynlora.viz.ui.run_picker import find_run, has_moved, link, no_runs, runs_dir
from dynlora.viz.verdict import race_card, races

LIST_KEYS = ("q", "status", "strategy", "sort", "group")
"""What the address of the list of runs holds; the list was the first page once, so links of then lead to it."""

MOST_ACTIVE = 4
"""Runs that are shown as running or queued."""

MOST_RECENT = 5
"""Runs that are shown as ended last."""


def is_link_to_list(names: Iterable[str]) -> bool:
    """Say whether the names of an address' values are those of the list of runs."""
    return not set(LIST_KEYS).isdisjoint(names)


def active(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the runs that can change by themselves, running ones before queued ones, the newest first.

    Args:
        runs: as `queries.list_runs` returns them.
    """
    rows = records(runs[runs["status"].isin(ACTIVE)].sort_values("created", ascending=False, kind="stable"))
    return sorted(rows, key=lambda row: row["status"] == "queued")


def recent(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the last own runs that do not run, the newest first; those that cannot be read are left out.

    Args:
        runs: as `run_picker.list_all` returns them.
    """
    ended = runs[runs["is_own"] & ~runs["status"].isin([*ACTIVE, "corrupt"])]
    return records(ended.sort_values("created", ascending=False, kind="stable").head(MOST_RECENT))


def live_run(runs: pd.DataFrame) -> str | None:
    """Return the id of the newest run that trains and has made a step, else None."""
    training = [row for row in active(runs) if row["status"] != "queued" and (row["step"] or 0) > 0]
    return training[0]["id"] if training else None


def result_words(row: Mapping[str, Any], now: float) -> str:
    """Return how a run ended, in words: status, deciding metric and when it was created.

    Args:
        row: of the list of runs.
        now: seconds since the epoch.
    """
    name, value = main_metric(row)
    status = str(STATUS_WORDS.get(row["status"], row["status"]))
    known = [status] if value is None else [status, f"{one_line(name, 30)} {score(value)}"]
    return ", ".join([*known, *_age(row.get("created"), now)])


def _age(created: Any, now: float) -> list[str]:
    """Return how long ago a run was created, in its larger unit; nothing when that is not known."""
    if not isinstance(created, int | float) or not 0 < created <= now:
        return []
    return [f"created {ago(now - created)}"]


TITLE = "dynlora trains LoRA adapters, moves rank to the modules that need it, and shows every step."
"""What dynlora is, in one sentence."""

PLACE = "Data, models and runs stay on this machine."

TOUR = "New here? Six short stops explain rank, importance and gates."


def picture_title(summary: RunSummary, *, is_live: bool) -> str:
    """Return the title of the picture: which run it is, how far one that trains has come, and what is synthetic.

    Args:
        summary: as `queries.run_summary` returns it.
        is_live: whether the run trains now.
    """
    name = one_line(summary.name, 60)
    if is_live:
        return f"Training now: {name}, {format_progress(dict(summary))}"
    return f"Does rank find its place? {name} (synthetic)" if outlined(summary) else f"Rank over training: {name}"


HIDDEN = "tour-hidden"
"""Key of the session in which the hint at the tour was hidden: the runs folder may be read-only."""


def sample_view(runs: pd.DataFrame) -> RunReading | None:
    """Return the capacity of the sample that moved rank where the need is known, else of the run of the tour.

    Args:
        runs: as `run_picker.list_all` returns them.

    Returns:
        None where no run can show it.
    """
    for row in _samples(runs):
        view = run_view(row["id"]) if has_moved(Path(row["folder"])) else None
        if view is not None and needed_modules(view.summary):
            return view
    with suppress(DynloraError):
        sample = tour.toured()
        return None if sample is None else sample.view
    return None


def _samples(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the finished samples of tasks whose need is known, as rows of the list."""
    return records(runs[~runs["is_own"] & (runs["status"] == "finished") & (runs["data"] == PLANTED_DATA)])


def beside(view: RunReading, runs: pd.DataFrame) -> str:
    """Say the result of a run beside that of samples of the same teacher; empty where its need is not known."""
    if not needed_modules(view.summary):
        return ""
    summaries: dict[str, RunSummary] = {view.summary.id: view.summary}
    for row in _samples(runs):
        with suppress(DynloraError):
            summaries.setdefault(row["id"], queries.run_summary(Path(row["folder"])))
    groups: dict[str, list[RunSummary]] = {}
    for summary in summaries.values():
        groups.setdefault(_side(summary), []).append(summary)
    return compared_sentence(groups)


def _side(summary: RunSummary) -> str:
    """Return what a run on planted ranks is beside others: its method, and whether its ranks are planted or equal."""
    method, one = summary.strategy or "", placement(summary)
    if one is not None and one.placed == one.total:
        return f"{method} with the planted ranks"
    return f"uniform {method}" if is_uniform(summary) else method


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
    with in_row("tour-hint"):
        st.markdown(TOUR, width="stretch")
        link("pages/tour.py", "Take the tour")
        if st.button("Hide", type="tertiary", key="hide-tour"):
            st.session_state[HIDDEN] = True
            tour.remember()
            st.rerun()


def picture(view: RunReading, runs: pd.DataFrame, *, is_live: bool) -> None:
    """Draw the model as a picture: a finished run plays by itself, one that trains shows its newest step.

    Args:
        view: of the run.
        runs: as `run_picker.list_all` returns them: samples that its result is set beside.
        is_live: whether it trains now.
    """
    view = replace(view, step=view.last, module=None)
    title = picture_title(view.summary, is_live=is_live)
    with card(title, "picture"):
        panel = registry()["train"].panel("replay")
        data = panel.data(RunView(view.folder, view, view.store))
        values = panel.element_values(data, colours())
        replay({**values, **speech(values, view)}, plays=not is_live, is_linked=False)
        note(beside(view, runs) or f"{about(view.summary)}. {first_sentence(panel.caption(data))[0]}")


def race(runs: pd.DataFrame) -> None:
    """Draw whether moving rank helps: the sample runs that show it, and those that do not; nothing without them."""
    with suppress(DynloraError):
        race_card(races(runs))


def no_picture() -> None:
    """Say why there is no picture."""
    with card("Rank over training", "picture"):
        note("The picture needs a run that recorded rank and importance. Launch one to see it here.")


def newest_moved(runs: pd.DataFrame) -> str | None:
    """Return the id of the last own run that ended and moved rank; None without one."""
    return next((row["id"] for row in recent(runs) if has_moved(Path(row["folder"]))), None)


def doors(sample: str | None) -> None:
    """Draw the three ways into the dashboard; Compare chooses its runs itself.

    Args:
        sample: id of the run whose capacity is shown; None for none.
    """
    with in_row("doors"):
        link("pages/capacity.py", "See rank move", **({"run": sample} if sample else {}))
        link("pages/launch.py", "Launch on my data", data="upload")
        link("pages/compare.py", "Compare methods")


def now_card(runs: pd.DataFrame) -> None:
    """Draw the runs that train or wait, each with how far it is; nothing without any."""
    active_runs = active(runs)
    if not active_runs:
        return
    with card("Running now", "now"):
        for row in active_runs[:MOST_ACTIVE]:
            with st.container(gap=None):
                _run_line(row, _standing)
                if row["status"] != "queued":
                    st.progress(progress_share(row))
        if len(active_runs) > MOST_ACTIVE:
            link("pages/runs.py", f"{len(active_runs) - MOST_ACTIVE} more", sort="status")


def _standing(row: Mapping[str, Any]) -> str:
    return "in the queue" if row["status"] == "queued" else format_progress(row)


def recent_card(runs: pd.DataFrame) -> None:
    """Draw the last runs that ended, each a link; what to do where there is no run at all."""
    now = time.time()
    recent_runs = recent(runs)
    if runs.empty:
        no_runs()
    if not recent_runs:
        return
    with card("Recent runs", "recent"):
        for row in recent_runs:
            _run_line(row, lambda row: result_words(row, now))
        link("pages/runs.py", "All runs")


def _run_line(row: Mapping[str, Any], words: Callable[[Mapping[str, Any]], str]) -> None:
    """Draw a run on one line: its name, which leads to it, its method, and its state."""
    with in_row(f"run-line-{row['id']}"):
        link("pages/run.py", markdown_text(row["name"], 60), run=row["id"])
        method = one_line(format_strategy(row), 40) if isinstance(row["strategy"], str) else ""
        note(" · ".join(filter(None, (method, words(row)))))
