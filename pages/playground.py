"""What does the trained model say of a text, and which words, gates and modules is it owed to?"""

from __future__ import annotations

import streamlit as st

from dynlora.store import queries
from dynlora.viz import ui as widgets
from dynlora.viz.kit import run_summary as listing
from dynlora.viz.playground import model as playground

widgets.enter()
run = widgets.pick_run()
with widgets.guarded():
    summary = queries.run_summary(run.folder)
    modules = widgets.modules(run.folder)
    examples = queries.examples_frame(run.folder, summary["step"])
    signals = widgets.signal_names(run.folder)
widgets.titled(f"Playground: {summary['name']}", listing.about(summary))
if not summary["step"] or modules.empty:
    widgets.note("Nothing has been trained yet: the playground opens with the first checkpoint.")
    st.stop()
asked = widgets.text_form(run, playground.task_of(summary, examples), examples, gated="gate" in signals)
if asked.text:
    widgets.answers_card(asked)
    widgets.explained_cards(asked, modules)
widgets.file_card(asked)
widgets.links(run.id, here="playground")
