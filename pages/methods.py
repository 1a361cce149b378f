"""Which methods are there, what do they do, and how sure is it that they do what their paper says?"""

from __future__ import annotations

import streamlit as st

from dynlora.jobs import launch
from dynlora.viz import ui as widgets
from dynlora.viz.launch import form_model as launchform
from dynlora.viz.methods import model as methods

widgets.enter()
widgets.titled("Methods", "Every strategy that can be launched: what it does, from which paper, at what cost.")
with widgets.guarded(), st.spinner("Asking for the strategies"):
    strategies = launch.catalog()["strategies"]

with widgets.card("Which methods are there?", "overview"):
    widgets.rows(methods.overview(strategies))
for strategy in strategies:
    with widgets.card(strategy.get("title") or strategy["name"], f"method-{strategy['name']}"):
        left, right = st.columns([3, 2], gap="large")
        with left:
            st.markdown(widgets.safe(strategy.get("summary") or ""))
            if strategy.get("formula"):
                st.latex(strategy["formula"])
            for paragraph in methods.how(strategy):
                widgets.documented(paragraph)
            if departs := methods.departs(strategy):
                widgets.documented(f"Departs from its source: {departs}")
        with right:
            widgets.facts(methods.facts(strategy), methods.paper_link(strategy))
            widgets.link("pages/launch.py", "Launch it", strategy=strategy["name"])
        with st.expander("Hyper-parameters", icon=":material/tune:"):
            st.dataframe(launchform.field_table(strategy), hide_index=True, width="stretch")
