"""How far the runs that are compared have come, while some of them are queued or train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

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
        found = progress.counted(plain_rows(runs[runs["id"].isin(ids)]))
        with card("Progress", "progress"):
            st.progress(found.share, text=progress.sentence(found))
            note("The verdict and the charts below follow each run that finishes.")
        if (found.finished, found.active) != (drawn.finished, drawn.active):
            st.rerun()

    show()
