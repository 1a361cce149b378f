"""Which of these runs is better, and where did they put their capacity?"""

from __future__ import annotations

import streamlit as st

from dynlora.viz import comparison, sentences_compare, widgets
from dynlora.viz.widgets import compare_runs
from dynlora.viz.widgets.answers import one_look
from dynlora.viz.widgets.report_button import report_button

AT_MOST = 50

widgets.enter()
widgets.titled("Compare", "The same figures of two to fifty runs, side by side; runs that differ in seed alone as one.")
runs = widgets.pick_runs("runs to compare", AT_MOST)
if len(runs) < 2:
    widgets.note("Pick two runs or more.")
    st.stop()
report_button(runs)
with widgets.guarded(), one_look():
    found = compare_runs.compared(runs)
    summaries, metric = list(found.summaries.values()), found.metric
    for words in comparison.warnings(summaries):
        st.warning(widgets.safe(words))
    with widgets.card("How did they end?", "final"):
        table = comparison.by_group(found.summaries, found.groups, metric)
        widgets.rows(comparison.group_table(table, metric))
        widgets.note(sentences_compare.groups(table, metric, low_is_good=metric in comparison.LOW_IS_GOOD))
        with st.expander("Each run: status, steps, best, time", icon=":material/table_rows:"):
            widgets.rows(comparison.final_table(summaries, found.names, metric))
    compare_runs.compared_curves(found)
    compare_runs.compared_pairs(found)
    left, right = st.columns(2)
    with left:
        compare_runs.compared_frontier(found)
    with right, widgets.card("What was set differently?", "settings"):
        difference = comparison.config_difference(summaries, found.names)
        if difference.empty:
            widgets.note("Nothing: the configurations are the same.")
        else:
            st.dataframe(difference, hide_index=True, width="stretch")
            widgets.table(difference, "settings")
    compare_runs.compared_ranks(found)
