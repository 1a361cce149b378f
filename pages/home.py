"""Where to begin: what dynlora is, the model as a picture that plays, what runs now."""

from __future__ import annotations

import streamlit as st

from dynlora.viz import home as home_cards
from dynlora.viz.ui import cards, frame, live, run_picker

frame.enter()
if home_cards.is_link_to_list(st.query_params):
    st.switch_page("pages/runs.py", query_params={name: st.query_params.get_all(name) for name in st.query_params})
cards.titled(home_cards.TITLE, home_cards.PLACE)
home_cards.tour_hint()
FIRST = run_picker.list_all()
LIVE = home_cards.live_run(FIRST)
of_runs, of_recent, of_picture = (live.reused(FIRST, run_picker.list_all) for _ in range(3))
left, right = st.columns([6, 5], gap="medium")


@live.following(3, active=True)
def show_runs() -> None:
    """Draw what runs now; once another run trains, or none does, the whole page is drawn again."""
    with live.guarded():
        runs = of_runs()
        if home_cards.live_run(runs) != LIVE:
            st.rerun()
        home_cards.now_card(runs)


@live.following(3, active=True)
def show_recent() -> None:
    """Draw what ended last."""
    with live.guarded():
        home_cards.recent_card(of_recent())


@live.following(3, active=LIVE is not None)
def show_picture() -> None:
    """Draw the run that trains, else the newest own one that moved rank, else the sample of the tour."""
    with live.guarded():
        view = home_cards.run_view(home_cards.live_run(of_picture())) if LIVE else None
        if view is not None:
            home_cards.picture(view, FIRST, is_live=True)
        elif ENDED is not None:
            home_cards.picture(ENDED, FIRST, is_live=False)
        else:
            home_cards.no_picture()


with right:
    with live.guarded():
        home_cards.race(FIRST)
    place = st.container()
    show_recent()
with live.guarded(), left, st.spinner("Loading a run"):
    ENDED = home_cards.run_view(home_cards.newest_moved(FIRST)) or home_cards.sample_view(FIRST)
with place:
    home_cards.doors(LIVE or (ENDED.summary.id if ENDED else None))
with left:
    show_picture()
    show_runs()
