"""Where does capacity sit, step by step, and who gave to whom?"""

from __future__ import annotations

from typing import Any

import streamlit as st

from dynlora.store import queries
from dynlora.viz import capacity, figures_capacity, figures_modules, flows, listing, sentences, signals, widgets
from dynlora.viz.widgets import ask

widgets.enter()
run = widgets.pick_run()
with widgets.guarded():
    IS_ACTIVE = queries.run_summary(run.folder)["status"] in listing.ACTIVE


@st.fragment(run_every=3 if IS_ACTIVE else None)
def show_capacity() -> None:
    """Draw everything; again and again while the run trains."""
    with widgets.guarded():
        summary = widgets.live_summary(run.folder, was_active=IS_ACTIVE)
        view = widgets.capacity_view(run.folder, summary)
        times = listing.step_times(ask(queries.scalars_frame, run.folder, None, "train", 2000))
    widgets.titled(f"Capacity: {summary['name']}", listing.about(summary))
    if view is None:
        widgets.status_line(summary)
        widgets.note("No ranks have been recorded yet. The map appears with the first steps.")
        return
    widgets.figures(listing.headline(summary, len(view.events), times))
    with widgets.guarded():
        view = widgets.capacity_controls(view)
        left, right = st.columns([5, 3])
        show_map(view, left)
        show_model(view, right)
        if view.module:
            show_module(view)
        left, right = st.columns(2)
        show_flow(view, left)
        show_agreement(view, right)
        if len(view.events) > 1:
            show_steadiness(view)


def show_map(view: Any, place: Any) -> None:
    """Draw the chosen signal over modules and steps."""
    heat, rows, budget = view.heat(view.signal, 400), view.rows(), view.budget()
    with place, widgets.card(signals.QUESTIONS[view.signal], "map"):
        look, table = view.about_map(heat.unit), capacity.wide(heat.frame, view.modules)
        figure = figures_capacity.capacity_map(heat.frame, heat.first_step, rows, budget, look, widgets.colours())
        widgets.chart(figure, f"{view.sentence()} {signals.binned(heat)}", table, f"map-{view.signal}")


def show_model(view: Any, place: Any) -> None:
    """Draw the model as a picture that plays through the steps shown."""
    state = view.state()
    words = sentences.picture(state, signals.uniform_rank(view.summary))
    with place, widgets.card("The model, step by step", "picture"):
        widgets.replay(view.pictures(words, widgets.colours()))
        widgets.under(words, capacity.state_table(state), "picture")


def show_module(view: Any) -> None:
    """Draw one module's row of the map as a line."""
    heat, title = view.heat(view.signal, 400), signals.WORDS[view.signal]
    with widgets.card(f"{view.short[view.module]} over the steps", "module"):
        series = capacity.one_module(heat.frame, view.modules, view.module)
        figure = figures_modules.module_lines(series, title, heat.unit, view.step, widgets.colours())
        widgets.chart(figure, f"{view.short[view.module]} is {view.module}.", series, "module")


def show_flow(view: Any, place: Any) -> None:
    """Draw who gave to whom in the steps shown."""
    with place, widgets.card(f"Who gave to whom, steps {view.first} to {view.last}", "flow"):
        by = widgets.segmented("flow", "ends of the flow", list(flows.BY), "kind", flows.BY.__getitem__)
        traced, sides = view.traced()
        found, ends = view.flow(traced, by)
        words = sentences.flow(traced, sides, len(view.events_shown), view.first, view.last)
        widgets.chart(figures_modules.rank_flow(found, ends, widgets.colours()), words, found, "flow")


def show_agreement(view: Any, place: Any) -> None:
    """Draw rank against importance."""
    state = view.state()
    with place, widgets.card(f"Did rank follow importance, at step {view.step}?", "scatter"):
        figure = figures_modules.importance_scatter(state, view.module, widgets.colours())
        widgets.chart(figure, sentences.followed(state), capacity.state_table(state), "scatter")


def show_steadiness(view: Any) -> None:
    """Draw how well the order of importance agrees from one reallocation to the next."""
    with widgets.card("Is importance steady from one reallocation to the next?", "steady"):
        steady = capacity.steadiness(view.heat_of("importance"), view.events)
        figure = figures_modules.steadiness(steady, widgets.colours())
        widgets.chart(figure, sentences.steadiness(steady), steady, "steady")


show_capacity()
widgets.links(run.id, here="capacity")
