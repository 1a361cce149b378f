"""How does this run go, what has it learned, and is anything wrong with it?"""

from __future__ import annotations

import streamlit as st

from dynlora.store import queries
from dynlora.viz import ui as widgets
from dynlora.viz.health.card import health_card
from dynlora.viz.kit import run_summary as listing
from dynlora.viz.run import live_cards as run_live
from dynlora.viz.run.result_cards import run_results
from dynlora.viz.ui import ask
from dynlora.viz.ui.cached_queries import ask_events, one_look

SECTIONS = {"training": "Training", "results": "Results", "machine": "Machine and log"}
POINTS = 600
"""Most points of a series that travel to the browser: least, greatest and last of each bin."""

widgets.enter()
run = widgets.pick_run()
with widgets.guarded():
    IS_ACTIVE = queries.run_summary(run.folder)["status"] in listing.ACTIVE


@widgets.following(2, active=IS_ACTIVE)
def show_run() -> None:
    """Draw everything that changes while the run trains."""
    with widgets.guarded(), one_look():
        summary = queries.run_summary(run.folder)
        if IS_ACTIVE and summary["status"] not in listing.ACTIVE:
            st.rerun()
        scalars = ask(queries.scalars_frame, run.folder, None, None, POINTS)
        times = listing.step_times(scalars)
        events = ask_events(queries.events_frame, run.folder, ("evaluate", "resume"))
        run_live.run_head(run, summary, times, events)
        health_card(run.folder, summary)
        section = widgets.segmented("section", "section", list(SECTIONS), "training", SECTIONS.__getitem__)
        if section == "results":
            run_results(run, summary, events)
        elif section == "machine":
            run_live.run_machine(run, summary)
        else:
            run_live.run_training(run, summary, scalars, times)


show_run()
