"""How far the runs that are compared have come, while some of them are queued or train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from dynlora.store import queries
from dynlora.viz.compare import progress
from dynlora.viz.runs.table import plain_rows
from dynlora.viz.ui import live, run_actions, run_picker
from dynlora.viz.ui.cards import card, note


def follow_progress(rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw how many of the runs have finished, and draw the page again when one more has; nothing when all are over.

    Args:
        rows: of the list, for the runs that are compared.
    """
    drawn = progress.counted(rows)
    if not drawn.active:
        return
    ids = [row["id"] for row in rows]

    @live.following(2, active=True)
    def show() -> None:
        run_actions.wake()
        runs = run_picker.list_all()
        now = plain_rows(runs[runs["id"].isin(ids)])
        found = progress.counted(now, _remaining(now))
        with card("Progress", "progress"):
            st.progress(found.share, text=progress.sentence(found))
            note("The verdict and the charts below follow each run that finishes.")
        if (found.finished, found.active) != (drawn.finished, drawn.active):
            st.rerun()

    show()


def _remaining(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds that the runs which train say they still need, by id."""
    training = [Path(row["folder"]) for row in rows if row["status"] in ("running", "stopping")]
    activities = {folder.name: queries.run_summary(folder)["activity"] or {} for folder in training}
    known = {run: activity.get("remaining_s") for run, activity in activities.items()}
    return {run: seconds for run, seconds in known.items() if seconds is not None}
