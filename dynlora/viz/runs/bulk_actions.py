"""What can be done with the ticked runs besides looking at them: export their rows, tag them, note what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from dynlora.analysis.frames import csv_text
from dynlora.errors import DynloraError
from dynlora.store.notes import MAX_NOTE_LENGTH, MAX_TAGS, annotate_notes
from dynlora.text import markdown_text
from dynlora.viz.runs import table as runs_table
from dynlora.viz.ui.run_actions import delete_button
from dynlora.viz.ui.run_picker import find_run, is_read_only, link, runs_root_of
from dynlora.viz.ui.url_state import hidden_runs, hide

MAX_COMMANDS = 20
MAX_COMPARED = 50


def export_button(runs: pd.DataFrame) -> None:
    """Offer the rows of runs as files, and the command that writes each one's adapter."""
    with st.popover("Export", icon=":material/download:"):
        st.caption("Table of the selected runs:")
        with st.container(horizontal=True):
            st.download_button(
                "CSV",
                lambda: csv_text(runs_table.export_frame(runs)),
                "runs.csv",
                "text/csv",
                key="export-csv",
                on_click="ignore",
            )
            st.download_button(
                "JSON",
                lambda: runs_table.export_json(runs),
                "runs.json",
                "application/json",
                key="export-json",
                on_click="ignore",
            )
        st.caption("Commands that export the adapters for `peft.PeftModel.from_pretrained`:")
        chosen = runs["id"].tolist()[:MAX_COMMANDS]
        commands = [runs_table.export_command(run_id, str(runs_root_of(run_id))) for run_id in chosen]
        st.code("\n".join(commands), language="bash", wrap_lines=True)
        if len(runs) > MAX_COMMANDS:
            st.caption(f"The first {MAX_COMMANDS} of {len(runs):,} are listed.")


def tags_button(ticked: pd.DataFrame, known: Sequence[str]) -> None:
    """Offer to change the tags of the ticked runs, and the note of a single one.

    Args:
        ticked: rows of own runs.
        known: tags that any run has, as suggestions.
    """
    if is_read_only():
        return
    one = len(ticked) == 1
    with st.popover("Tags and note" if one else "Add tags", icon=":material/sell:"):
        before = list(ticked["tags"].iloc[0]) if one else []
        key = ticked["id"].iloc[0] if one else "many"
        tags = st.multiselect(
            "Tags",
            list(dict.fromkeys([*before, *known])),
            before,
            key=f"tags-{key}",
            accept_new_options=True,
            max_selections=MAX_TAGS,
            placeholder="Type a tag and press Enter",
        )
        note = None
        if one:
            note = st.text_area("Note", ticked["note"].iloc[0], key=f"note-{key}", max_chars=MAX_NOTE_LENGTH)
        if st.button("Save", key="save-notes", type="primary"):
            gone = [tag for tag in before if tag not in tags]
            _save([find_run(run_id).folder for run_id in ticked["id"]], tags, gone, note)


def _save(folders: Sequence[Path], add: Sequence[str], remove: Sequence[str], note: str | None) -> None:
    try:
        for folder in folders:
            annotate_notes(folder, add=add, remove=remove, note=note)
    except (DynloraError, OSError) as error:
        st.error(markdown_text(error, 2000))
    else:
        st.rerun()


def show_note(runs: pd.DataFrame) -> None:
    """Show the note of the one ticked run, as it was typed."""
    note = runs["note"].iloc[0]
    if note:
        st.text(note)


def hidden_line(hidden: int) -> None:
    """Say how many runs are hidden, with the button that shows them again; nothing when none is."""
    if not hidden:
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="hidden-line"):
        st.caption(f"{hidden:,} hidden.", width="content")
        if st.button("Show all", icon=":material/visibility:", key="show-hidden", type="tertiary"):
            hide(())
            st.rerun()


def ticked_runs(runs: pd.DataFrame, chosen: Sequence[str], known: Sequence[str]) -> None:
    """Draw what can be done with the ticked runs: compare, export, tag, delete; the panel of a single one has the rest.

    Args:
        runs: the runs that are shown.
        chosen: ids of the ticked ones.
        known: tags that any run has.
    """
    rows = runs[runs["id"].isin(chosen)]
    own = rows[rows["is_own"]]
    with st.container(horizontal=True, gap="small", key="ticked", vertical_alignment="center"):
        if len(chosen) > 1:
            link("pages/compare.py", f"Compare {len(chosen)} runs", runs=",".join(chosen[:MAX_COMPARED]))
        if st.button("Hide", icon=":material/visibility_off:", key="hide", help="Leave out of the list and of charts."):
            hide({*hidden_runs(), *chosen})
            st.rerun()
        export_button(rows)
        if len(own):
            readable = own[own["status"] != "corrupt"]
            if len(readable):
                tags_button(readable, known)
            if len(chosen) > 1 or readable.empty:
                delete_button(own["id"].tolist())
    if len(chosen) == 1:
        show_note(rows)
