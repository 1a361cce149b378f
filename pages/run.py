"""One run: training curves, results, machine and log."""

from __future__ import annotations

import streamlit as st

from dynlora.analysis import run_summary
from dynlora.analysis.run_reading import POINTS
from dynlora.analysis.run_summary import STATUS_WORDS
from dynlora.store import queries
from dynlora.viz.health import health_card
from dynlora.viz.ranks.card import ranks_card
from dynlora.viz.report.button import report_button
from dynlora.viz.run import live_cards
from dynlora.viz.run.result_cards import run_results
from dynlora.viz.ui import frame, guard, live, run_picker, url_state
from dynlora.viz.ui.cached_queries import ask, ask_events, one_refresh
from dynlora.viz.verdict.cards import verdict_of_run

SECTIONS = {"training": "Training", "results": "Results", "machine": "Machine and log"}

frame.enter()
run = run_picker.pick_run()
with guard.guarded():
    BEFORE = queries.run_summary(run.folder)
IS_ACTIVE = BEFORE["status"] in run_summary.ACTIVE
frame.tab_title(f"{STATUS_WORDS.get(BEFORE['status'], BEFORE['status'])}: {BEFORE['name']}")


@live.following(2, active=IS_ACTIVE)
def show_run() -> None:
    """Draw everything that changes while the run trains."""
    with guard.guarded(), one_refresh():
        summary = queries.run_summary(run.folder)
        if IS_ACTIVE and summary["status"] not in run_summary.ACTIVE:
            st.rerun()
        scalars = ask(queries.scalars_frame, run.folder, None, None, POINTS)
        times = run_summary.step_times(scalars)
        events = ask_events(queries.events_frame, run.folder, ("evaluate", "resume"))
        live_cards.run_head(run, summary, times, events, report_button)
        verdict_of_run(run, summary)
        ranks_card(run, summary)
        health_card(run.folder, summary)
        section = url_state.segmented("section", "Section", list(SECTIONS), "training", SECTIONS.__getitem__)
        if section == "results":
            run_results(run, summary, events)
        elif section == "machine":
            live_cards.run_machine(run, summary)
        else:
            live_cards.run_training(run, summary, scalars)


show_run()
