"""Which runs are there, and how do they stand?"""

from __future__ import annotations

import streamlit as st

from dynlora.viz import listing, widgets

widgets.enter()
widgets.titled("Runs", "Every run in the runs folder, and the samples that come with dynlora (read-only).")
ACTIVE = widgets.is_active(widgets.list_all())


@st.fragment(run_every=2 if ACTIVE else None)
def show_runs() -> None:
    """Draw the table and what can be done with the ticked runs."""
    widgets.wake()
    runs = widgets.list_all()
    if runs.empty:
        widgets.empty_store()
    if ACTIVE and not widgets.is_active(runs):
        st.rerun()
    table = listing.runs_table(runs)
    chosen = widgets.runs_grid(table)
    own = [run_id for run_id in chosen if bool(runs.loc[runs["id"] == run_id, "is_own"].iloc[0])]
    if not chosen:
        widgets.note("Tick one run to open it, two or more to compare them.")
    elif len(chosen) == 1:
        widgets.links(chosen[0])
    else:
        widgets.link("pages/compare.py", f"Compare {len(chosen)} runs", runs=",".join(chosen))
    widgets.unreadable(runs)
    if own:
        widgets.delete_button(own)
    widgets.trash()


show_runs()
widgets.link("pages/launch.py", "Launch a run")
