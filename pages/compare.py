"""Which of these runs is better, and where did they put their capacity?"""

from __future__ import annotations

import streamlit as st

from dynlora.store import queries
from dynlora.viz import comparison, figures, figures_compare, listing, sentences, widgets
from dynlora.viz.widgets import ask

widgets.enter()
widgets.titled("Compare", "The same figures of several runs, side by side.")
runs = widgets.pick_runs("runs to compare")
if len(runs) < 2:
    widgets.note("Pick two runs or more.")
    st.stop()
with widgets.guarded():
    summaries = [queries.run_summary(run.folder) for run in runs]
    scalars = {run.id: ask(queries.scalars_frame, run.folder, None, None, 1000) for run in runs}
    modules = {run.id: widgets.modules(run.folder) for run in runs}
for words in comparison.warnings(summaries):
    st.warning(widgets.safe(words))
names, metric, colours = comparison.distinct_names(summaries), comparison.shared_metric(summaries), widgets.colours()
loss = comparison.together({run: listing.series(frame, "loss", "train") for run, frame in scalars.items()}, smooth=True)
held = comparison.together({run: listing.series(frame, metric, "validation") for run, frame in scalars.items()})
final = comparison.final_table(summaries, names, metric)

with widgets.card("How did they end?", "final"):
    widgets.rows(final)
    widgets.note(sentences.compared(comparison.last_values(final, metric), metric))
left, right = st.columns(2)
with left, widgets.card("Who learns faster?", "loss"):
    figure = figures.overlay(loss, names, "training loss, smoothed, nats", colours)
    widgets.chart(figure, sentences.lowest(loss, names), loss, "overlay-loss")
with right, widgets.card(f"Who does better on held-out rows? ({metric})", "metric"):
    figure = figures.overlay(held, names, f"{metric}, held out", colours, marks=True)
    widgets.chart(figure, sentences.evaluations(held, names), held, "overlay-metric")
left, right = st.columns([3, 2])
with left, widgets.card("Where did they put their capacity?", "ranks"):
    shared, rows = comparison.rank_table(summaries, modules, names)
    if rows.empty:
        widgets.note("No ranks have been recorded yet.")
    else:
        figure = figures_compare.final_ranks(shared, rows, colours)
        widgets.chart(figure, sentences.allocation(shared), comparison.named_rows(shared), "ranks")
with right, widgets.card("What was set differently?", "settings"):
    difference = comparison.config_difference(summaries, names)
    if difference.empty:
        widgets.note("Nothing: the configurations are the same.")
    else:
        st.dataframe(difference, hide_index=True, width="stretch")
        widgets.table(difference, "settings")
