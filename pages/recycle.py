"""LoRA Recycle: a meta-LoRA made of finished runs, and how few examples a new task needs."""

from __future__ import annotations

import streamlit as st

from dynlora.store import queries
from dynlora.store.kinds import RECYCLE
from dynlora.viz.kit import run_summary
from dynlora.viz.recycle import cards as recycle_cards
from dynlora.viz.recycle import form, text
from dynlora.viz.ui import cached_queries, cards, frame, live, run_actions, run_picker

frame.enter()
if run_picker.list_all((RECYCLE,)).empty and "run" not in st.query_params:
    cards.titled("Recycle", text.WHAT)
    form.recycle_form(is_open=True)
    st.stop()
run = run_picker.pick_run("Recycle", kind=RECYCLE)
with frame.guarded():
    IS_ACTIVE = queries.run_summary(run.folder)["status"] in run_summary.ACTIVE


@live.following(3, active=IS_ACTIVE)
def show_recycle() -> None:
    """Draw everything; again and again while it works."""
    with frame.guarded(), cached_queries.one_refresh():
        summary = cached_queries.live_summary(run.folder, was_active=IS_ACTIVE)
        shown = recycle_cards.read(run)
        cards.titled(f"Recycle: {summary['name']}", text.about(shown.found))
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="recycle-head"):
            cards.badge(summary["status"])
            st.caption(f"Step {summary['step']:,} of {summary['max_steps']:,}", width="content")
            run_actions.run_buttons(run, summary["status"])
        cards.status_line(summary)
        recycle_cards.conclusion_card(shown, is_active=IS_ACTIVE, step=summary["step"])
        recycle_cards.accuracy_card(shown)
        left, right = st.columns(2)
        with left:
            recycle_cards.inversion_card(shown)
            recycle_cards.words_card(shown)
        with right:
            recycle_cards.agreement_card(shown)
            recycle_cards.episodes_card(shown)
        left, right = st.columns([2, 3])
        with left:
            recycle_cards.kept_card(shown)
        with right:
            recycle_cards.places_card(shown)


show_recycle()
form.recycle_form(is_open=False)
