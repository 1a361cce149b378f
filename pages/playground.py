"""Predictions for a text, and their attribution to words, gates and modules."""

from __future__ import annotations

import streamlit as st

from dynlora.analysis import run_summary
from dynlora.kinds.run_kind import registry
from dynlora.store import queries
from dynlora.viz import trials
from dynlora.viz.playground import cards as playground_cards
from dynlora.viz.playground import chat_cards
from dynlora.viz.playground import model as playground_model
from dynlora.viz.ui import cached_queries, cards, frame, live, model_client, run_picker, url_state

TABS = {
    "run": ("A run", lambda: True, None),
    "few-shot": ("Few-shot", trials.can_try_few_shot, trials.few_shot_tab),
    "decode": ("Decode", trials.can_try_decode, trials.live_tab),
}
"""What can be tried: its name, whether there is something to try, and what draws it; None is this page."""

frame.enter()
model_client.prepare_model()
WANTED = st.query_params.get("tab")
SHOWN = [tab for tab, (_, can_try, _) in TABS.items() if tab == WANTED or can_try()]
if len(SHOWN) > 1:
    tab = url_state.segmented("tab", "What to try", SHOWN, "run", lambda tab: TABS[tab][0])
    if (draw := TABS[tab][2]) is not None:
        with live.guarded():
            draw()
        st.stop()
run = run_picker.pick_run(suits=run_picker.has_model, others=run_picker.askable())
with live.guarded():
    summary = queries.run_summary(run.folder)
    modules = cached_queries.modules(run.folder)
    examples = queries.examples_frame(run.folder, summary.step)
    signals = cached_queries.signal_names(run.folder)
KIND = registry()[summary.kind]
run_picker.run_views(run.id, summary, "playground" if KIND.allocates else "")
if not summary.step or (modules.empty and KIND.allocates):
    then = "The playground is available after the first checkpoint."
    cards.note(run_summary.nothing_recorded(summary, "step", then))
    st.stop()
task, is_gated = playground_model.task_of(summary, examples), "gate" in signals
if not run_picker.has_model(run.folder):
    playground_cards.without_model(run, is_active=summary.status in run_summary.ACTIVE)
elif task.writes:
    other = chat_cards.talk_cards(run, task, summary, examples)
    playground_cards.file_card(playground_cards.Asked(run, task, is_gated, "", None, other))
else:
    form = playground_cards.text_form(run, task, examples, gated=is_gated)
    if form.text:
        playground_cards.answers_card(form)
        playground_cards.explained_cards(form, modules)
    playground_cards.file_card(form)
if not KIND.allocates:
    run_picker.link(f"pages/{KIND.page}.py", "How it was made", run=run.id)
