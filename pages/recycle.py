"""LoRA Recycle: a meta-LoRA made of finished runs, and how few examples a new task needs."""

from __future__ import annotations

import streamlit as st

from dynlora.viz.recycle import cards as recycle_cards
from dynlora.viz.recycle import form, text
from dynlora.viz.ui import cached_queries, frame, live

run, IS_ACTIVE = form.PAGE.picked(form.recycle_form)


@live.following(3, active=IS_ACTIVE)
def show_recycle() -> None:
    """Draw everything; again and again while it works."""
    with frame.guarded(), cached_queries.one_refresh():
        summary = cached_queries.live_summary(run.folder, was_active=IS_ACTIVE)
        shown = recycle_cards.read(run)
        done = f"Step {summary['step']:,} of {summary['max_steps']:,}"
        form.PAGE.head(run, summary, text.about(shown.found), done)
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
