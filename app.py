"""The dashboard: its pages and its menu; `dynlora ui` starts it."""

from __future__ import annotations

import streamlit as st

from dynlora.viz.ui import frame, live
from dynlora.viz.ui.run_picker import kinds_of_page

PAGES = {
    "": [
        st.Page("pages/home.py", title="Home", icon=":material/home:", default=True),
        st.Page("pages/runs.py", title="Runs", icon=":material/list:"),
        st.Page("pages/launch.py", title="Launch", icon=":material/rocket_launch:"),
        st.Page("pages/compare.py", title="Compare", icon=":material/compare_arrows:"),
    ],
    "Run": [
        st.Page("pages/run.py", title="Run", icon=":material/monitoring:"),
        st.Page("pages/capacity.py", title="Capacity", icon=":material/grid_on:"),
        st.Page("pages/inputs.py", title="Inputs", icon=":material/scatter_plot:"),
        st.Page("pages/playground.py", title="Playground", icon=":material/psychology:"),
        st.Page("pages/shrink.py", title="Shrink", icon=":material/compress:"),
    ],
    "Learn": [
        st.Page("pages/tour.py", title="Tour", icon=":material/school:"),
        st.Page("pages/methods.py", title="Methods", icon=":material/menu_book:"),
    ],
    "Labs": [
        st.Page("pages/decode.py", title="Decode", icon=":material/edit_note:"),
        st.Page("pages/recycle.py", title="Recycle", icon=":material/recycling:"),
    ],
}
if kinds_of_page("plugins"):
    PAGES["Labs"].append(st.Page("pages/plugins.py", title="Plug-ins", icon=":material/extension:"))
# With its own icon before `st.navigation`: for a page's icon the browser would ask a server of fonts.
st.set_page_config(page_icon="📊", layout="wide", menu_items={"About": frame.ABOUT})
page = st.navigation(PAGES, position="hidden")
st.set_page_config(page_title=f"{page.title} · dynlora")
frame.prepare(page)
with live.guarded():
    frame.menu(PAGES, page)
    page.run()
