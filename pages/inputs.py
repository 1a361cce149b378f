"""Gates, results and probe examples by input group."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dynlora.analysis import inputs, run_summary
from dynlora.analysis.inputs import InputsReading, inputs_of
from dynlora.analysis.module_effects import served
from dynlora.analysis.run_reading import read_run
from dynlora.kinds.run_kind import registry
from dynlora.store import queries
from dynlora.viz import shift
from dynlora.viz.capacity import choose_modules, with_chosen_modules
from dynlora.viz.inputs import figures
from dynlora.viz.inputs import view as inputs_view
from dynlora.viz.kit.panel import RunView
from dynlora.viz.ui import cached_queries, cards, frame, live, run_picker, url_state
from dynlora.viz.ui.panel_cards import pairs

frame.enter()
run = run_picker.pick_run(suits=inputs_view.shows)
with live.guarded():
    IS_ACTIVE = queries.run_summary(run.folder).status in run_summary.ACTIVE


@live.following(5, active=IS_ACTIVE)
def show_inputs() -> None:
    """Draw everything; again and again while the run trains."""
    with live.guarded():
        summary = cached_queries.live_summary(run.folder, was_active=IS_ACTIVE)
        names = cached_queries.signal_names(run.folder)
        run_picker.run_views(run.id, summary, "inputs")
        cards.status_line(summary)
        if "probe_loss" not in names and "group_loss" not in names:
            then = "Groups and examples appear with the first evaluation."
            cards.note(run_summary.nothing_recorded(summary, "evaluation by group", then))
            return
        place = st.container()
        bound = run_summary.last_planned_step(summary)
        reading = with_chosen_modules(read_run(run.folder, cached_queries.CACHED, summary))
        map_name = inputs_view.choose_map(inputs_of(reading))
        steps, *places = st.columns([6, 2, 2], vertical_alignment="bottom")
        with steps:
            step = url_state.step_slider(summary.step, bound)
        choose_modules(reading, places)
        reading = replace(reading, step=step)
        view = inputs_of(reading)
        panels = {panel.id: panel for panel in registry()["train"].panels if panel.part == "Inputs"}
        drawn = RunView(run.folder, reading, reading.store, inputs_view.addressed(view))
        with place:
            inputs_view.show_conclusion(run, view, drawn)
        inputs_view.map_cards(map_name, run, view, drawn, panels)
        chosen = show_map(view)
        if chosen:
            show_examples(view, chosen)
        groups = "All of the groups: metrics over time, modules by group"
        with url_state.section("groups", groups) as is_open:
            if is_open:
                pairs([(panels["group"], part, end) for end, part in panels["group"].views(drawn).items()])
                show_served(view)
        if not chosen and len(view.examples):
            with url_state.section("examples", "Probe examples by loss") as is_open:
                if is_open:
                    show_examples(view, chosen)


def show_served(view: InputsReading) -> None:
    """List the groups with the modules that open and close for them."""
    if len(view.groups):
        with cards.card("Modules by input group", "served"):
            table = served(view.gates, view.modules, view.effect, view.groups, view.summary.metric)
            cards.rows(table.round(4))
            cards.note("Values: gate minus its mean over the groups. Only differences beyond chance are listed.")


def show_map(view: InputsReading) -> list[int]:
    """Draw the probe set as points that can be selected, and return those that are."""
    if view.examples.empty:
        cards.note("This run has no probe set.")
        return []
    chosen = inputs_view.chosen_examples()
    with cards.card("Map of the probe examples", "probe"):
        kinds = inputs.colourings(view.examples, gated=len(view.probe_gates) > 0)
        by, module = inputs_view.colour_choice(kinds, view.short)
        points, axes = inputs_view.placed(view)
        points = points.assign(gate=view.gate_of(module)) if by == "gate" else points
        names, title = view.groups["group"].tolist(), f"gate of {view.short.get(module, '')}" if by == "gate" else by
        figure = figures.probe_scatter(points, by, cards.colours(), names, chosen=chosen, title=title, axes=axes)
        inputs_view.selectable(figure, figures.probe(view.examples), "probe")
        cards.under(figures.probe(view.examples), points, "probe")
    return chosen


def show_examples(view: InputsReading, chosen: list[int]) -> None:
    """List the examples that were selected, or all."""
    with cards.card(f"Selected examples: {len(chosen)}" if chosen else "Probe examples by loss", "listed"):
        cards.texts(inputs.listed(view.examples, chosen, writes=view.writes))
        inputs_view.pin_link(run.id, chosen)
        inputs_view.depth_chart(view, chosen)


@live.fragment(run_every=None)
def show_model() -> None:
    """Draw what the trained model is asked."""
    shift.model_sections(run.folder)


show_inputs()
show_model()
