"""Reward-guided speculative decoding: who wrote each step, what the reward said, and what that saved."""

from __future__ import annotations

import streamlit as st

from dynlora.store import queries
from dynlora.store.kinds import DECODE
from dynlora.viz.decode import cards as decode_cards
from dynlora.viz.decode import form, text
from dynlora.viz.kit import run_summary
from dynlora.viz.ui import cached_queries, cards, frame, live, run_actions, run_picker

frame.enter()
if run_picker.list_all((DECODE,)).empty and "run" not in st.query_params:
    cards.titled("Decode", text.WHAT)
    form.decode_form(is_open=True)
    st.stop()
run = run_picker.pick_run("Decode", kind=DECODE)
with frame.guarded():
    IS_ACTIVE = queries.run_summary(run.folder)["status"] in run_summary.ACTIVE


@live.following(2, active=IS_ACTIVE)
def show_decode() -> None:
    """Draw everything; again and again while problems are solved."""
    with frame.guarded(), cached_queries.one_refresh():
        summary = cached_queries.live_summary(run.folder, was_active=IS_ACTIVE)
        found = decode_cards.read(run.folder, is_active=IS_ACTIVE)
        cards.titled(f"Decode: {summary['name']}", text.about(found))
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="decode-head"):
            cards.badge(summary["status"])
            st.caption(f"{summary['step']:,} of {summary['max_steps']:,} solutions", width="content")
            run_actions.run_buttons(run, summary["status"])
        cards.status_line(summary)
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
