"""What is rank, what is importance, who gave to whom, what do gates do, was it worth it? A tour on a real run."""

from __future__ import annotations

import streamlit as st

from dynlora.viz.tour import stops as tour_stops
from dynlora.viz.ui import cards, frame, guard, url_state

frame.enter()
url_state.keep_address()
with guard.guarded(), st.spinner("Selecting a run"):
    tour = tour_stops.toured()
if tour is None:
    cards.titled("Tour", "What rank is, and how it moves between modules during training.")
    tour_stops.nothing_to_tour()
    st.stop()
tour_stops.head(tour)
with guard.guarded():
    tour_stops.show_stop(tour)
