"""Results, settings and ranks of several runs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import streamlit as st

from dynlora.viz.compare import cards as compare_cards
from dynlora.viz.compare import many_cards, run_selection
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import text as compare_text
from dynlora.viz.compare.panels import panels_of
from dynlora.viz.compare.run_selection import visibility_toggles
from dynlora.viz.kit.run_colours import dots
from dynlora.viz.launch.start_from import baseline_button
from dynlora.viz.report.button import report_button
from dynlora.viz.run import live_cards
from dynlora.viz.ui import cards, frame, live, run_picker, url_state
from dynlora.viz.ui.cached_queries import one_refresh
from dynlora.viz.ui.panel_cards import panel_card, panel_cards
from dynlora.viz.verdict import verdict_of_runs

SECTIONS = {
    "results": "Results",
    "capacity": "Capacity and settings",
    "numbers": "Scatter plots",
    "sweeps": "Sweeps",
    "paper": "Results table",
}

frame.enter()
cards.titled("Compare", "Compare two to hundreds of runs. Runs that differ only in the seed form one group.")
with st.container(key="choice-of-runs"):
    chosen = run_selection.select_runs()
if len(chosen.rows) < 2:
    if run_selection.say_alone(chosen):
        baseline_button(chosen.runs[0])
    st.stop()
if live_cards.is_presenting():
    section = "present"
else:
    with live.guarded():
        compare_cards.follow_progress(chosen.rows)
    section = url_state.segmented("section", "Section", SECTIONS)


opener = partial(url_state.section, address="part")
"""Draws an opener of the results; `section` is that of the whole page."""


def show_results() -> None:
    """Draw how the runs ended, how they got there, and whether the difference is more than chance."""
    run_selection.say_how_many(chosen)
    compared = compare_cards.read(chosen.runs, chosen.summaries)
    judged = compared.judged
    verdict_of_runs(compared.judgements, compared.summaries, compared.notes)
    if judged is not None:  # what leads the verdict leads every list and legend
        compared = replace(compared, groups=judged.in_order(compared.groups))
    with cards.in_row("compare-controls"):
        compare_cards.group_controls(compared)
        report_button(chosen.runs)
        selection = {name: st.query_params[name] for name in ("runs", "q") if name in st.query_params}
        run_picker.link("pages/compare.py", "Present", present="1", **selection)
    styles, metric = compared.styles(cards.colours()), compared.metric
    visibility_toggles(compared.all_groups, styles)
    with cards.card("Final results", "final"):
        table = compared.points
        cards.rows(compare_model.group_table(table, metric), dots(table["group"], styles))
        cards.note(compare_text.groups(table, metric, is_judged=judged is not None and judged.decisive is not None))
        with st.expander("Each run: status, steps, best result, time", icon=":material/table_rows:"):
            cards.rows(
                compare_model.final_table(compared.rows, compared.names, metric), compare_cards.dots_of_runs(compared)
            )
    compare_cards.compared_curves(compared)
    with opener("pairs", "Paired difference of two groups, seed by seed", ("first", "second")) as is_open:
        if is_open:
            compare_cards.compared_pairs(compared, judged and judged.sides)
    for panel in panels_of("Final results"):
        with opener(panel.id, panel.title) as is_open:
            if is_open:
                panel_card(panel, compared.view)
    with opener("examples", "One example in every run", ("example",)) as is_open:
        if is_open:
            compare_cards.compared_example(compared)


def show_capacity() -> None:
    """Draw where the runs put their capacity, and what was set differently."""
    run_selection.say_how_many(chosen)
    compared = compare_cards.read(chosen.runs, chosen.summaries)
    compare_cards.capacity_conclusion(compared)
    compare_cards.group_controls(compared)
    visibility_toggles(compared.all_groups, compared.styles(cards.colours()))
    panel_cards(panels_of("Capacity", "Setup"), compared.view)


def show_screens() -> None:
    """Draw the screen of the presentation that the address asks for: the verdict, the results, the ranks."""
    compared = compare_cards.read(chosen.runs, chosen.summaries)
    verdict = partial(verdict_of_runs, compared.judgements, compared.summaries, compared.notes, times=live_cards.LARGER)
    live_cards.present([verdict, *compare_cards.screens(compared, live_cards.LARGER)])


with live.guarded(), one_refresh():
    if section == "present":
        show_screens()
    elif section == "capacity":
        show_capacity()
    elif section == "numbers":
        many_cards.numbers(chosen.rows)
    elif section == "sweeps":
        many_cards.sweep_parts(chosen.rows)
    elif section == "paper":
        many_cards.paper_table(chosen.rows)
    else:
        show_results()
