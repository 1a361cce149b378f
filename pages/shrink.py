"""How small the adapter of a run may be, and where it must stay large."""

from __future__ import annotations

import streamlit as st

from dynlora.analysis import run_summary
from dynlora.kinds.train.panels import measured
from dynlora.store import queries
from dynlora.viz import shrink
from dynlora.viz.ui import cached_queries, cards, frame, live, model_client, run_picker

frame.enter()
model_client.prepare_model()
run = run_picker.pick_run(suits=shrink.has_adapter)
with live.guarded():
    summary = queries.run_summary(run.folder)
    modules = cached_queries.modules(run.folder)
    compressed = shrink.measured(run, summary)
run_picker.run_views(run.id, summary, "shrink")
if summary.status in run_summary.ACTIVE:
    cards.note("The sizes of an adapter are measured once its run has ended.")
    st.stop()
if modules.empty:
    cards.note(run_summary.nothing_recorded(summary, "step", ""))
    st.stop()
if compressed is None:
    with cards.card("How small may the adapter be?", "shrink-start"):
        cards.note(measured.WHAT)
        shrink.measuring(run, compressed)
else:
    size, tolerance = shrink.chosen_size(compressed)
    view = shrink.Shown(run, summary, modules, compressed, size, tolerance)
    shrink.conclusion_card(view)
    shrink.launched_link()
    left, right = st.columns([3, 2])
    with left:
        shrink.curve_card(view)
    with right:
        shrink.picture_card(view)
    shrink.config_card(view)
    with cards.card("Sizes on more or fewer examples", "shrink-again"):
        shrink.measuring(run, compressed)
