"""The runs that wait, in the order they start, each with the buttons that move it."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dynlora.store.schema import command_text
from dynlora.text import markdown_text, plural
from dynlora.viz.ui.cards import card, note
from dynlora.viz.ui.queue_actions import move_buttons, waiting_runs
from dynlora.viz.ui.run_picker import runs_dir

MOST_LISTED = 12
"""Most waiting runs that are listed; the list of runs has all."""


def queue_card(runs: pd.DataFrame) -> None:
    """Draw the queue; nothing while fewer than two runs wait.

    Args:
        runs: all runs, as `run_picker.list_all` returns them.
    """
    if (runs["status"] == "queued").sum() < 2:
        return
    names = dict(zip(runs["id"], runs["name"], strict=True))
    line = [run_id for run_id in waiting_runs() if run_id in names]
    if len(line) < 2:
        return
    with card(f"Queue: {plural(len(line), 'run')} waiting", "queue"):
        for place, run_id in enumerate(line[:MOST_LISTED], 1):
            with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"queue-line-{place}"):
                st.markdown(f"{place}. {markdown_text(names[run_id], 80)}", width="stretch")
                move_buttons(run_id, f"queue-{place}", line)
        if len(line) > MOST_LISTED:
            listing = command_text("queue", runs_dir=runs_dir())
            note(f"The next {MOST_LISTED} are listed. `{listing}` lists all, and moves any of them.")
