"""All methods: what they do, their papers, and how faithful they are to them."""

from __future__ import annotations

import streamlit as st

from dynlora.jobs import launch
from dynlora.viz.launch import form_model
from dynlora.viz.methods import model as methods_model
from dynlora.viz.ui import cards, facts, frame, run_picker

frame.enter()
cards.titled("Methods", "All strategies: what they do, their papers and their cost.")
with frame.guarded(), st.spinner("Loading the strategies"):
    strategies = launch.catalog()["strategies"]

with cards.card("Overview", "overview"):
    cards.rows(methods_model.overview(strategies))
for strategy in strategies:
    with cards.card(strategy.get("title") or strategy["name"], f"method-{strategy['name']}"):
        left, right = st.columns([3, 2], gap="large")
        with left:
            st.markdown(cards.safe(strategy.get("summary") or ""))
            if strategy.get("formula"):
                st.latex(strategy["formula"])
            for paragraph in methods_model.how(strategy):
                cards.documented(paragraph)
            if departs := methods_model.departs(strategy):
                cards.documented(f"Differences from the source: {departs}")
        with right:
            facts.facts(methods_model.facts(strategy), methods_model.paper_link(strategy))
            run_picker.link("pages/launch.py", "Launch", strategy=strategy["name"])
            frame.documentation("Full description", f"methods/{strategy['name']}")
        with st.expander("Hyperparameters", icon=":material/tune:"):
            st.dataframe(form_model.field_table(strategy), hide_index=True, width="stretch")
