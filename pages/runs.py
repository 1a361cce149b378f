"""Which runs are there, how do they stand, and what came of them?"""

from __future__ import annotations

from typing import Any

import streamlit as st

from dynlora.viz.run import result_cards
from dynlora.viz.runs import cards as runs_cards
from dynlora.viz.runs import table as runs_table
from dynlora.viz.runs.cards import names_below, runs_conclusion
from dynlora.viz.ui import cards, frame, live, run_actions, run_picker, url_state

frame.enter()
cards.titled("Runs", "All runs in the runs folder, and the read-only sample runs of dynlora.")
ACTIVE = run_picker.active_among(run_picker.list_all(None))
if ACTIVE:
    frame.tab_title(f"{ACTIVE} active · Runs")


@live.following(2, active=ACTIVE > 0)
def show_runs() -> None:
    """Draw the table and what can be done with the ticked runs."""
    run_actions.wake()
    runs = run_picker.list_all(None)
    if runs.empty:
        run_picker.no_runs()
    else:
        show_list(runs)
    if run_picker.active_among(runs) != ACTIVE:
        st.rerun()
    run_actions.unreadable(runs)
    run_actions.trash()


def show_list(runs: Any) -> None:
    """Draw the controls, the groups, the table and the ticked runs."""
    place = st.container()
    view = runs_cards.list_controls(runs)
    matches = runs_cards.searched(runs, view.query)
    fitting = runs_table.filtered(runs if matches is None else matches, view.statuses, view.strategies)
    listed = fitting[~fitting["id"].isin(url_state.hidden_runs())].reset_index(drop=True)
    runs_cards.search_line(view.query, runs_table.match_caption(len(fitting), len(runs)), is_sound=matches is not None)
    if len(listed):
        with place:
            runs_conclusion(listed)
    runs_cards.queue_card(runs)
    runs_cards.hidden_line(len(fitting) - len(listed))
    runs_cards.group_card(listed, view.group)
    if matches is not None:
        runs_cards.compare_link(view.query, len(matches))
    if listed.empty:
        return
    with cards.in_row("list-and-panel", "top"):
        with st.container(key="list"):
            table = runs_table.ordered(runs_table.runs_table(listed), view.sort)
            picked = run_actions.runs_grid(table.copy())
        if picked.looked_at and picked.looked_at not in set(runs[runs["status"] == "corrupt"]["id"]):
            with st.container(key="panel"), live.guarded():
                result_cards.run_panel(run_picker.find_run(picked.looked_at))
    names_below(table)
    if picked.ticked:
        runs_cards.ticked_runs(listed, picked.ticked, runs_table.all_tags(runs))
    else:
        cards.note(
            "A click on a name opens the run, the middle button in a new tab; a click on its row shows a summary. "
            "Tick runs to compare, export or delete them."
        )


show_runs()
with st.container(horizontal=True):
    run_picker.link("pages/launch.py", "Launch a run")
    run_picker.link("pages/launch.py", "Start an experiment", mode="experiment")
    run_picker.link("pages/launch.py", "Start a sweep", mode="sweep")
