"""One LoRA made of finished runs: a meta-LoRA of classifiers (LoRA Recycle), or a student of runs that write."""

from __future__ import annotations

import streamlit as st

from dynlora.store import queries
from dynlora.store.kinds import DISTIL
from dynlora.viz.distil import cards as distil_cards
from dynlora.viz.recycle import cards as recycle_cards
from dynlora.viz.recycle import form, text
from dynlora.viz.ui import cached_queries, guard, live

run, IS_ACTIVE = form.PAGE.picked(form.recycle_form)


@live.following(3, active=IS_ACTIVE)
def show_recycle() -> None:
    """Draw everything; again and again while it works."""
    with guard.guarded(), cached_queries.one_refresh():
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


@live.following(3, active=IS_ACTIVE)
def show_distil() -> None:
    """Draw a data-free distillation; again and again while it works."""
    with guard.guarded(), cached_queries.one_refresh():
        summary = cached_queries.live_summary(run.folder, was_active=IS_ACTIVE)
        shown = distil_cards.read(run)
        form.PAGE.head(run, summary, shown.about, f"Step {summary['step']:,} of {summary['max_steps']:,}")
        distil_cards.draw(shown, summary, is_active=IS_ACTIVE)


with guard.guarded():
    KIND = queries.run_kind(run.folder)
if KIND == DISTIL:
    show_distil()
else:
    show_recycle()
form.recycle_form(is_open=False)
