"""Reward-guided speculative decoding: who wrote each step, what the reward said, and what that saved."""

from __future__ import annotations

import streamlit as st

from dynlora.viz.decode import cards as decode_cards
from dynlora.viz.decode import form, text
from dynlora.viz.ui import cached_queries, cards, guard, live

run, IS_ACTIVE = form.PAGE.picked(form.decode_form)


@live.following(2, active=IS_ACTIVE)
def show_decode() -> None:
    """Draw everything; again and again while problems are solved."""
    with guard.guarded(), cached_queries.one_refresh():
        summary = cached_queries.live_summary(run.folder, was_active=IS_ACTIVE)
        found = decode_cards.read(run.folder, is_active=IS_ACTIVE)
        done = f"{summary['step']:,} of {summary['max_steps']:,} solutions"
        form.PAGE.head(run, summary, text.about(found), done)
        place = st.container()
        shown = decode_cards.choose_point(found)
        with place:
            decode_cards.conclusion_card(found, shown.point if shown else None, run)
        if shown is None:
            cards.note("The first solved problem appears here.")
            return
        decode_cards.solution_card(shown)
        decode_cards.evidence(shown)


show_decode()
form.decode_form(is_open=False)
