"""What is rank, what is importance, who gave to whom, what do gates do, was it worth it? A tour on a real run."""

from __future__ import annotations

import streamlit as st

from dynlora.viz import tour as viz_tour
from dynlora.viz.ui import cards, frame, live, url_state

frame.enter()
url_state.keep_address()
with live.guarded(), st.spinner("Selecting a run"):
    tour = viz_tour.toured()
if tour is None:
    cards.titled("Tour", "What rank is, and how it moves between modules during training.")
    viz_tour.nothing_to_tour()
    st.stop()
viz_tour.head(tour)
with live.guarded():
    viz_tour.show_stop(tour)
