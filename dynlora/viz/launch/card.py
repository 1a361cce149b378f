"""What became of the runs that were started on the Launch page, until each has made its first step."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dynlora.analysis import run_summary
from dynlora.errors import DynloraError
from dynlora.jobs.launch import is_alive
from dynlora.store import queries
from dynlora.store.schema import run_folder
from dynlora.store.summary import RunSummary
from dynlora.text import markdown_text
from dynlora.viz.launch.form import forget_launched, launched
from dynlora.viz.ui import live
from dynlora.viz.ui.run_picker import link, runs_dir

EVERY_S = 1.0
"""Seconds between two looks at runs that have not made a step yet."""


def show_launched() -> None:
    """Say which runs the last press of the button started and what they do, and let the form start another."""
    ids = launched()
    if not ids:
        return
    first = _summaries(ids)
    waits = any(_is_coming(summary) for _, summary in first)
    read = live.reused(first, lambda: _summaries(ids))

    @live.following(EVERY_S, active=waits)
    def show() -> None:
        found = read()
        for run_id, summary in found:
            _line(run_id, summary)
        if waits and not any(_is_coming(summary) for _, summary in found):
            st.rerun()  # nothing to wait for any more

    show()
    st.button("Allow another run with these settings", on_click=forget_launched)


def _summaries(ids: Sequence[str]) -> list[tuple[str, RunSummary | None]]:
    return [(run_id, _summary(run_id)) for run_id in ids]


def _summary(run_id: str) -> RunSummary | None:
    """Return a run as it is, None when it cannot be read, as for one that was deleted."""
    try:
        return queries.run_summary(run_folder(runs_dir(), run_id))
    except DynloraError:
        return None


def _is_coming(summary: RunSummary | None) -> bool:
    """Say whether a run has still to make its first step."""
    return summary is not None and summary["status"] in run_summary.ACTIVE and not summary["step"]


def _line(run_id: str, summary: RunSummary | None) -> None:
    """Draw one run: its id, what it does, why it failed, and the link to its page."""
    with st.container(horizontal=True, vertical_alignment="center", key=f"launched-{run_id}"):
        if summary is not None and summary["status"] == "failed":
            why = markdown_text(summary["error"] or "the run failed", 2000)
            st.error(
                f"{run_id} was refused before its first step: {why}" if not summary["step"] else f"{run_id}: {why}"
            )
        else:
            st.success(f"Started as {run_id}. {_doing(run_id, summary)}".strip(), width="stretch")
        link("pages/run.py", "Open run", run=run_id)


def _doing(run_id: str, summary: RunSummary | None) -> str:
    """Return what a run does before its first step, in a sentence; empty when it has made one."""
    if summary is None or not _is_coming(summary):
        return ""
    if summary["status"] == "queued":
        return "Its process is starting." if is_alive(runs_dir(), run_id) else "It waits in the queue."
    said = run_summary.phase(summary, lambda: queries.logs_frame(run_folder(runs_dir(), run_id), 20))
    return f"{markdown_text(said)}." if said else ""
