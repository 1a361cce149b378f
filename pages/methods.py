"""Which methods are there, what do they do, and how sure is it that they do what their paper says?"""

from __future__ import annotations

import streamlit as st

from dynlora.jobs import launch
from dynlora.viz.launch import form_model
from dynlora.viz.methods import model as methods_model
from dynlora.viz.ui import cards, facts, frame, run_picker

frame.enter()
cards.titled("Methods", "Every strategy that can be launched: what it does, from which paper, at what cost.")
with frame.guarded(), st.spinner("Asking for the strategies"):
    strategies = launch.catalog()["strategies"]

with cards.card("Which methods are there?", "overview"):
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
                cards.documented(f"Departs from its source: {departs}")
        with right:
            facts.facts(methods_model.facts(strategy), methods_model.paper_link(strategy))
            run_picker.link("pages/launch.py", "Launch it", strategy=strategy["name"])
            frame.documentation("Full description", f"methods/{strategy['name']}")
        with st.expander("Hyper-parameters", icon=":material/tune:"):
            st.dataframe(form_model.field_table(strategy), hide_index=True, width="stretch")
