"""Which methods are there, what do they do, and how sure is it that they do what their paper says?"""

from __future__ import annotations

import streamlit as st

from dynlora import launch
from dynlora.viz import launchform, widgets

widgets.enter()
widgets.titled("Methods", "Every strategy that can be launched: what it does, from which paper, at what cost.")
with widgets.guarded(), st.spinner("Asking for the strategies"):
    strategies = launch.catalog()["strategies"]
for strategy in strategies:
    with widgets.card(strategy.get("title") or strategy["name"], f"method-{strategy['name']}"):
        widgets.note(strategy.get("summary") or strategy.get("doc") or "")
        if strategy.get("formula"):
            st.latex(strategy["formula"])
        widgets.note(
            f"Name: {strategy['name']}. Fidelity: {strategy.get('fidelity', '?')}. "
            f"Paper: {strategy.get('paper') or 'none'}. Cost: {strategy.get('cost') or 'none'}."
        )
        with st.expander("Hyper-parameters", icon=":material/tune:"):
            st.dataframe(launchform.field_table(strategy), hide_index=True, width="stretch")
        widgets.link("pages/launch.py", "Launch it", strategy=strategy["name"])
