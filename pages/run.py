"""One run: its result in a line each, what it learned, what it gets wrong, and everything else behind an opener."""

from __future__ import annotations

import streamlit as st

from dynlora.analysis import ranks_to_use, run_summary
from dynlora.analysis.result_strip import result_strip
from dynlora.analysis.run_reading import read_run
from dynlora.analysis.run_summary import STATUS_WORDS
from dynlora.kinds.train.panels.texts import GeneratedTexts
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.viz.capacity import ranks_of_run, selection_note, with_chosen_modules
from dynlora.viz.kit.panel import RunView
from dynlora.viz.report.button import share_button
from dynlora.viz.run import live_cards, result_cards
from dynlora.viz.run.button import health_card
from dynlora.viz.ui import cards, frame, live, run_picker, url_state
from dynlora.viz.ui.cached_queries import CACHED, one_refresh
from dynlora.viz.verdict import JudgedRun, judged_run, verdict_evidence

frame.enter()
url_state.keep_address()
run = run_picker.pick_run()
with live.guarded():
    BEFORE = queries.run_summary(run.folder)
IS_ACTIVE = BEFORE.status in run_summary.ACTIVE
frame.tab_title(f"{STATUS_WORDS.get(BEFORE.status, BEFORE.status)}: {BEFORE.name}")


@live.following(2, active=IS_ACTIVE)
def show_run() -> None:
    """Draw everything that changes while the run trains."""
    with live.guarded(), one_refresh():
        summary = queries.run_summary(run.folder)
        if IS_ACTIVE and summary.status not in run_summary.ACTIVE:
            st.rerun()
        judged, ranks = judged_run(run, summary), ranks_of_run(run, summary)
        strip = result_strip(summary, judged.verdict, ranks)
        if live_cards.is_presenting():
            live_cards.present(live_cards.run_screens(strip, read_run(run.folder, CACHED, summary), judged))
            return
        is_detailed = "machine" in st.query_params.get_all(url_state.SECTION)
        run_picker.run_views(run.id, summary, "run")
        settings = ranks_to_use.lora_settings(summary, summary.ranks)
        live_cards.run_strip(run, summary, strip, judged, ranks, settings, share_button)
        live_cards.run_actions(run, summary, is_detailed=is_detailed)
        reading = with_chosen_modules(read_run(run.folder, CACHED, summary))
        view = RunView(run.folder, reading, reading.store)
        if is_detailed:
            live_cards.run_details(view)
        if reading.scalars.empty:
            cards.note(run_summary.nothing_recorded(summary, "step", "Charts appear after the first steps."))
            if summary.status in ("running", "stopping"):
                health_card(run.folder, summary)
            return
        selection_note(reading)
        live_cards.training_panels(view, FIRST)
        live_cards.retention_line(view)
        show_results(summary, view, judged)


def show_results(summary: RunSummary, view: RunView, judged: JudgedRun) -> None:
    """Draw what the run writes or gets wrong, its health, and openers for all else."""
    texts = GeneratedTexts().data(view)
    left, right = st.columns([3, 2])
    with left:
        result_cards.generated_texts(texts, summary) if texts else result_cards.wrong_card(view)
    with right:
        health_card(run.folder, summary)
        if texts:
            live_cards.panel_column(view, SECOND)
    if not texts:
        live_cards.training_panels(view, SECOND)
    with url_state.section("results", "All results: classes, groups, before and after") as is_open:
        if is_open:
            verdict_evidence(judged)
            if texts:
                result_cards.wrong_card(view)
            result_cards.run_results(view, SECOND)
    with url_state.section("training", "All of training: budget, learning rate, step time") as is_open:
        if is_open:
            live_cards.training_panels(view, without=(*FIRST, *SECOND))


FIRST, SECOND = ("loss", "kinds"), ("metric", "confusion")
"""Panels that the page shows first, and below what the run gets wrong."""

show_run()
