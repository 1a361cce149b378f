"""Which runs are there, how do they stand, and what came of them?"""

from __future__ import annotations

from typing import Any

import streamlit as st

from dynlora.viz import ui as widgets
from dynlora.viz.launch import sweep_form
from dynlora.viz.runs import bulk_actions as ticked
from dynlora.viz.runs import filters
from dynlora.viz.runs import group_card as run_groups
from dynlora.viz.runs import search_box as search
from dynlora.viz.runs import table as runlist
from dynlora.viz.ui import run_picker as picker

widgets.enter()
widgets.titled("Runs", "Every run in the runs folder, and the samples that come with dynlora (read-only).")
RUNS = widgets.list_all()
ACTIVE = widgets.is_active(RUNS)


@widgets.following(2, active=ACTIVE)
def show_runs() -> None:
    """Draw the table and what can be done with the ticked runs."""
    widgets.wake()
    runs = widgets.list_all()
    if runs.empty:
        picker.no_runs()
    else:
        show_list(runs)
    if ACTIVE and not widgets.is_active(runs):
        st.rerun()
    widgets.unreadable(runs)
    widgets.trash()


def show_list(runs: Any) -> None:
    """Draw the controls, the groups, the table and the ticked runs."""
    view = filters.list_controls(runs)
    found = search.searched(runs, view.query)
    shown = runlist.filtered(runs if found is None else found, view.statuses, view.strategies)
    search.search_line(view.query, runlist.found_words(len(shown), len(runs)), is_sound=found is not None)
    run_groups.group_card(shown, view.group)
    if found is not None:
        search.compare_link(view.query, len(found))
    if shown.empty:
        return
    chosen = widgets.runs_grid(runlist.ordered(runlist.runs_table(shown), view.sort))
    if chosen:
        ticked.ticked_runs(shown, chosen, runlist.all_tags(runs))
    else:
        widgets.note("Tick one run to open it, two or more to compare them.")


show_runs()
with st.container(horizontal=True):
    widgets.link("pages/launch.py", "Launch a run")
sweep_form.sweep_form(RUNS)
