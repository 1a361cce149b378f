"""Which of these runs is better, what did they set differently, and where did they put their capacity?"""

from __future__ import annotations

import streamlit as st

from dynlora.viz import ui as widgets
from dynlora.viz.compare import cards as compare_runs
from dynlora.viz.compare import many_cards as compare_many
from dynlora.viz.compare import model as comparison
from dynlora.viz.compare import run_selection as selection
from dynlora.viz.compare import text as sentences_compare
from dynlora.viz.report.button import report_button
from dynlora.viz.ui.cached_queries import one_look

SECTIONS = {
    "results": "Results",
    "capacity": "Capacity and settings",
    "numbers": "Numbers",
    "sweeps": "Sweeps",
    "paper": "Paper table",
}

widgets.enter()
widgets.titled("Compare", "Runs side by side, two or hundreds; runs that differ in seed alone as one.")
chosen = selection.select_runs()
if len(chosen.rows) < 2:
    widgets.note("Pick two runs or more.")
    st.stop()
section = widgets.segmented("section", "section", list(SECTIONS), "results", SECTIONS.__getitem__)


def show_results() -> None:
    """Draw how the runs ended, how they got there, and whether the difference is more than chance."""
    selection.say_how_many(chosen)
    report_button(chosen.runs)
    found = compare_runs.compared(chosen.runs)
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
    compare_runs.compared_frontier(found)


def show_capacity() -> None:
    """Draw where the runs put their capacity, and what was set differently."""
    selection.say_how_many(chosen)
    found = compare_runs.compared(chosen.runs)
    compare_runs.compared_ranks(found)
    with widgets.card("What was set differently?", "settings"):
        difference = comparison.config_difference(list(found.summaries.values()), found.names)
        if difference.empty:
            widgets.note("Nothing: the configurations are the same.")
        else:
            st.dataframe(difference, hide_index=True, width="stretch")
            widgets.table(difference, "settings")


def show_numbers() -> None:
    """Draw any two numbers against each other, and many at once."""
    compare_many.two_numbers(chosen.rows)
    compare_many.many_numbers(chosen.rows)


with widgets.guarded(), one_look():
    if section == "capacity":
        show_capacity()
    elif section == "numbers":
        show_numbers()
    elif section == "sweeps":
        compare_many.sweep_parts(chosen.rows)
    elif section == "paper":
        compare_many.paper_table(chosen.rows)
    else:
        show_results()
